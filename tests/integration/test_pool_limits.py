"""The limits of a cluster's pool through a real worker: who waits, who is refused, which connection serves whom."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.config.route import RetryPolicy
from tests.support.wait import until
from tests.support.worker import Worker, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


class App:
    """Answers once `release` is set; keeps the paths in the order in which they came and the connections."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.paths: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.most = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while True:
                self.paths.append((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
                await self.release.wait()
                writer.write(OK)
        finally:
            self.open -= 1


def get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n" % path


def statuses(answers: list[bytes]) -> list[int]:
    return [int(status) for answer in answers for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


async def active(one: Worker, count: int) -> None:
    """Wait until so many requests are under way or waiting."""
    async with asyncio.timeout(5):
        while await one.gauge("upstream_rq_active") != count:  # noqa: ASYNC110  # another process's gauge
            await asyncio.sleep(0.01)


async def test_who_waits_longest_is_served_first(one: Worker) -> None:
    """Also when others of the queue give up, at its ends and in its middle; all on the one connection."""
    app = App()
    async with upstream(app) as port:
        limits = CircuitBreakers(max_connections=1)
        assert await one.apply(snapshot(one.port, port, cluster={"circuit_breakers": limits})) is None
        clients = []
        for number in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(get(b"/%d" % number))
            await active(one, number + 1)
            clients.append((reader, writer))
        for number in (7, 4, 1):
            writer = clients[number][1]
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await active(one, 5)
        app.release.set()
        answers = await asyncio.gather(*(clients[number][0].read() for number in (0, 2, 3, 5, 6)))
        for _, writer in clients:
            writer.close()
    assert statuses(answers) == [200] * 5
    assert app.paths == [b"/0", b"/2", b"/3", b"/5", b"/6"]
    assert app.connections == 1


async def test_max_connections(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        limits = CircuitBreakers(max_connections=3)
        await one.apply(snapshot(one.port, port, cluster={"circuit_breakers": limits}))
        talks = [asyncio.create_task(one.talk(get(b"/"))) for _ in range(10)]
        await active(one, 10)
        await until(lambda: len(app.paths) == 3, 5, "three requests reach the app")
        app.release.set()
        assert statuses(await asyncio.gather(*talks)) == [200] * 10
    assert app.most == 3
    assert app.connections == 3


async def test_max_requests(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        limits = CircuitBreakers(max_requests=2)
        await one.apply(snapshot(one.port, port, cluster={"circuit_breakers": limits}))
        talks = [asyncio.create_task(one.talk(get(b"/"))) for _ in range(2)]
        await active(one, 2)
        refused = await one.talk(get(b"/"))
        app.release.set()
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"max_requests" in refused
        assert statuses(await asyncio.gather(*talks)) == [200] * 2
        assert statuses([await one.talk(get(b"/"))]) == [200]
        assert await one.count("response_flags_total", flag="UO") == 1


async def test_max_requests_per_connection(one: Worker) -> None:
    app = App()
    app.release.set()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, cluster={"max_requests_per_connection": 2}))
        for _ in range(5):
            assert statuses([await one.talk(get(b"/"))]) == [200]
    assert app.connections == 3


async def test_an_idle_connection_is_closed_in_time_and_one_in_use_is_not(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, cluster={"idle_timeout": 0.3}))
        slow = asyncio.create_task(one.talk(get(b"/")))
        await until(lambda: app.paths, 5, "the request reaches the app")
        await asyncio.sleep(0.5)
        assert app.open == 1
        app.release.set()
        assert statuses([await slow]) == [200]
        assert app.open == 1  # kept for the next one
        await until(lambda: not app.open, 5, "the idle connection is closed")
        assert await one.gauge("upstream_cx_active") == 0


async def test_the_routes_timeout_while_waiting(one: Worker) -> None:
    """504, no byte of it to the app, and its place in the queue is free again."""
    app = App()
    async with upstream(app) as port:
        limits = CircuitBreakers(max_connections=1, max_pending_requests=2)
        await one.apply(
            snapshot(one.port, port, cluster={"circuit_breakers": limits}, action={"timeout": 0.4, "retry": None})
        )
        first = asyncio.create_task(one.talk(get(b"/first")))
        await until(lambda: app.paths, 5, "the first request reaches the app")
        waiting = [asyncio.create_task(one.talk(get(b"/waits"))) for _ in range(2)]
        assert statuses([await first, *await asyncio.gather(*waiting)]) == [504] * 3
        await one.at_rest()
        app.release.set()
        assert statuses(await asyncio.gather(*(one.talk(get(b"/after")) for _ in range(2)))) == [200] * 2
        assert await one.count("response_flags_total", flag="UT") == 3
    # The first one's connection, given up in the middle, went to one of those who waited; who timed out did not.
    assert app.paths.count(b"/waits") <= 1
    assert app.paths.count(b"/after") == 2


async def test_those_who_wait_do_not_share_one_new_connection(one: Worker) -> None:
    """Every connection breaks while others wait: each of these gets one of its own, as far as the limit allows."""
    breaking, together = asyncio.Event(), asyncio.Barrier(3)
    served = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        if served <= 3:
            await breaking.wait()
            return
        await together.wait()
        writer.write(OK)
        await reader.read()

    async with upstream(app) as port:
        limits = CircuitBreakers(max_connections=3)
        await one.apply(snapshot(one.port, port, cluster={"circuit_breakers": limits}, action={"retry": None}))
        post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        broken = [asyncio.create_task(one.talk(post)) for _ in range(3)]
        await until(lambda: served == 3, 5, "three requests reach the app")
        waiting = [asyncio.create_task(one.talk(get(b"/"))) for _ in range(3)]
        await active(one, 6)
        breaking.set()
        assert statuses(await asyncio.gather(*broken)) == [503] * 3
        assert statuses(await asyncio.gather(*waiting)) == [200] * 3


async def test_an_endpoint_removed_while_requests_wait_for_it(one: Worker) -> None:
    app, other = App(), App()
    other.release.set()
    async with upstream(app) as port, upstream(other) as new:
        cluster = {"circuit_breakers": CircuitBreakers(max_connections=1)}
        await one.apply(snapshot(one.port, port, cluster=cluster))
        talks = [asyncio.create_task(one.talk(get(b"/%d" % number))) for number in range(3)]
        await active(one, 3)
        await until(lambda: app.paths, 5, "the first request reaches the app")
        await one.apply(snapshot(one.port, new, cluster=cluster))
        assert statuses([await one.talk(get(b"/new"))]) == [200]
        app.release.set()
        assert statuses(await asyncio.gather(*talks)) == [200] * 3
        assert other.paths == [b"/new"]
        await until(lambda: not app.open, 5, "the removed endpoint's connections are closed")


METHODS = [
    (b"GET", b"", 2),
    (b"HEAD", b"", 2),
    (b"OPTIONS", b"", 2),
    (b"PUT", b"hello", 2),
    (b"DELETE", b"", 2),
    (b"POST", b"hello", 1),
    (b"PATCH", b"hello", 1),
    (b"POST", b"", 1),
]


@pytest.mark.parametrize(("method", "body", "tries"), METHODS)
async def test_a_stale_connection(one: Worker, method: bytes, body: bytes, tries: int) -> None:
    """Kept alive, then closed as the next request comes: once more on a fresh connection, if the method may be
    repeated (RFC 9110 §9.2.2) - and only once."""
    seen: list[bytes] = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not seen:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(len(body))

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, action={"retry": None}))
        assert statuses([await one.talk(get(b"/"))]) == [200]
        framing = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        answer = await one.talk(method + b" / HTTP/1.1\r\nhost: app\r\n" + framing + body)
        assert statuses([answer]) == [503]
        assert await one.count("response_flags_total", flag="UC") == 1
    assert len(seen) - 1 == tries


async def test_once_a_byte_of_the_answer_came_it_is_not_asked_again(one: Worker) -> None:
    seen = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                seen += 1
                writer.write(OK if seen == 1 else b"HTTP/1.1 2")
                if seen > 1:
                    return

    async with upstream(app) as port:
        retry = RetryPolicy(frozenset(("connect-failure", "refused-stream", "reset-before-request", "reset")), 3)
        await one.apply(snapshot(one.port, port, action={"retry": retry}))
        assert statuses([await one.talk(get(b"/"))]) == [200]
        assert statuses([await one.talk(get(b"/"))])[0] in (502, 503)
        assert seen == 2
