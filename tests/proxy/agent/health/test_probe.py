"""One question to one endpoint: what it sends, what it takes for an answer, which connection it uses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from proxy.agent.health.probe import Ill, Probe, Target, probe
from proxy.config.health_check import GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from tests.support.worker import free_port, upstream


def config(check: Any, **fields: Any) -> HealthCheck:
    return HealthCheck(
        **{"check": check, "timeout": 2.0, "interval": 1.0, "unhealthy_threshold": 1, "healthy_threshold": 1, **fields}
    )


@contextlib.contextmanager
def probing(port: int, check: Any, **fields: Any) -> Any:
    one: Probe = probe(Target("127.0.0.1", port, "cart"), config(check, **fields))
    try:
        yield one
    finally:
        one.close()


class Server:
    """Answers each request of HTTP/1.1 with the next of `answers`, the last again and again."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if not answer:
                return
            writer.write(answer)
            if b"close" in answer:
                return


def answer(status: int, more: bytes = b"", body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, more, len(body), body)


async def test_http_says_what_it_is_told_to_say() -> None:
    server = Server(answer(200, body=b"well"))
    async with upstream(server) as port:
        with probing(port, HttpCheck("/up?x=1", method="POST", headers=(("x-a", "b"),))) as one:
            await one.ask()
    lines = ["POST /up?x=1 HTTP/1.1", "host: cart", "user-agent: Pillion/HC", "x-a: b", "content-length: 0", "", ""]
    assert server.requests == ["\r\n".join(lines).encode()]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (answer(200), True),
        (answer(204), False),
        (answer(250), True),
        (answer(300), False),
        (b"HTTP/1.1 100 C\r\n\r\n" + answer(200), True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", True),
        (answer(503), False),
    ],
)
async def test_http_statuses(text: bytes, good: bool) -> None:
    async with upstream(Server(text)) as port:
        with probing(port, HttpCheck("/", expected_statuses=((200, 201), (250, 260)))) as one:
            if good:
                await one.ask()
            else:
                with pytest.raises(Ill, match="status"):
                    await one.ask()


async def test_retriable_statuses_may_pass() -> None:
    async with upstream(Server(answer(503), answer(500))) as port:
        with probing(port, HttpCheck("/", retriable_statuses=((500, 501),))) as one:
            for retriable in (False, True):
                with pytest.raises(Ill) as caught:
                    await one.ask()
                assert caught.value.retriable == retriable


async def test_a_connection_is_used_again_while_it_can_be() -> None:
    server = Server(answer(200), answer(503), answer(200, b"connection: close\r\n"), answer(200))
    async with upstream(server) as port:
        with probing(port, HttpCheck("/")) as one:
            await one.ask()
            with pytest.raises(Ill):
                await one.ask()
            await one.ask()
            await one.ask()
        assert server.connections in (2, 3)
        server.connections = 0
        with probing(port, HttpCheck("/"), reuse_connection=False) as one:
            await one.ask()
            await one.ask()
        assert server.connections == 2


@pytest.mark.parametrize("text", [b"", b"SSH-2.0 hello\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
async def test_no_http_is_no_answer(text: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    async with upstream(serve) as port:
        with probing(port, HttpCheck("/")) as one, pytest.raises(OSError, match=r"."):
            await one.ask()


async def test_nobody_there_and_nobody_who_answers() -> None:
    with probing(free_port(), HttpCheck("/")) as one, pytest.raises(ConnectionRefusedError):
        await one.ask()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as port:
        for check in (HttpCheck("/"), TcpCheck(b"x", (b"y",)), GrpcCheck(), HttpCheck("/", http2=True)):
            with probing(port, check, timeout=0.03) as one, pytest.raises(TimeoutError, match=r"within 0\.03s"):
                await one.ask()


async def test_tcp() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readexactly(4) == b"PING":
            writer.write(b"+.PO")
            await writer.drain()
            writer.write(b"NG..!")

    async with upstream(serve) as port:
        with probing(port, TcpCheck(b"PING", (b"PONG", b"!"))) as one:
            await one.ask()
            await one.ask()
        assert connections == 1
        with probing(port, TcpCheck()) as one:
            await one.ask()
        with probing(port, TcpCheck(b"PING", (b"!", b"PONG")), timeout=0.05) as one, pytest.raises(TimeoutError):
            await one.ask()
        with probing(port, TcpCheck(b"WHAT", (b"PONG",))) as one, pytest.raises(ConnectionError, match="closed"):
            await one.ask()


@contextlib.asynccontextmanager
async def health_server() -> AsyncIterator[tuple[int, HealthServicer]]:
    server, servicer = grpc.aio.server(), HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, servicer
    finally:
        await server.stop(None)


async def test_grpc_and_http2() -> None:
    async with health_server() as (port, servicer):
        with probing(port, GrpcCheck("cart")) as one:
            with pytest.raises(Ill, match="grpc-status 5"):
                await one.ask()
            await servicer.set("cart", health_pb2.HealthCheckResponse.SERVING)
            for _ in range(3):
                await one.ask()
            await servicer.set("cart", health_pb2.HealthCheckResponse.NOT_SERVING)
            with pytest.raises(Ill, match="NOT_SERVING"):
                await one.ask()
        with probing(port, GrpcCheck()) as one:
            await one.ask()
        # The same server is one of HTTP/2.
        call = HttpCheck(
            "/a.B/C", "", "POST", headers=(("content-type", "application/grpc"), ("te", "trailers")), http2=True
        )
        with probing(port, call) as one:
            await one.ask()
            await one.ask()
        with probing(port, replace(call, expected_statuses=((201, 202),))) as one, pytest.raises(Ill, match="200"):
            await one.ask()
    async with upstream(Server(answer(200))) as port:
        with probing(port, GrpcCheck()) as one, pytest.raises(OSError, match=r"."):
            await one.ask()
