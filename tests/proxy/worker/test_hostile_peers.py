"""What a client, an upstream or a certificate can try against a worker, each once found to work."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.config.cluster import CircuitBreakers
from proxy.config.route import ForwardAction, Route, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster
from proxy.routing.matchers import path
from tests.proxy.worker import test_tls as tls
from tests.support.certificates import HOUR, Leaf
from tests.support.worker import snapshot, upstream, worker

GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


def certificate(names: bytes) -> Leaf:
    """A certificate of the trusted CA with these bytes for a subjectAltName."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    san = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), names)
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(tls.CA._certificate.subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(san, critical=False)
        .sign(tls.CA._key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Leaf(built.public_bytes(pem).decode(), secret.decode())


@pytest.mark.parametrize("uri", [b"spiffe://pillion.local/\xff", b"spiffe://pillion.local/\0x"])
async def test_a_certificate_that_cannot_be_read_lets_nobody_in(uri: bytes, tmp_path: Path) -> None:
    async with worker() as one:
        app = tls.Recorder()
        async with upstream(app) as port:
            assert await one.apply(await tls.inbound(one, port)) is None
            names = bytes([0x30, len(uri) + 2, 0x86, len(uri)]) + uri
            assert await tls.ask(one, tls.client(certificate(names), tmp_path)) == b""
            assert await one.count("downstream_tls_error_total", reason="bad_san") == 1
            assert not app.heads


def test_a_regular_expression_takes_no_longer_on_a_hostile_path() -> None:
    class Head:
        path = target = b"/" + b"a" * 5000 + b"!"

    matches = path(RouteMatch("safe_regex", r"/(\w+/?)+"))
    assert matches is not None
    assert not matches(Head())  # type: ignore[arg-type]  # by backtracking it would not come back


async def test_a_tunnel_is_one_whatever_2xx_opens_it() -> None:
    seen: list[list[bytes]] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: list[bytes] = []
        seen.append(requests)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            requests.append(head.split(b" ")[0])
            if head.startswith(b"CONNECT"):
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    clusters = (WeightedCluster("app"),)
    routes = (
        Route(RouteMatch("connect_matcher", ""), ForwardAction(clusters, upgrades=(("connect", True),)), "c"),
        Route(RouteMatch("prefix", "/"), ForwardAction(clusters), "r"),
    )
    table = RouteConfiguration("routes", (VirtualHost("all", ("*",), routes),))
    async with worker() as one, upstream(proxy) as port:
        assert await one.apply(snapshot(one.port, port, http={"route_config": table})) is None
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"CONNECT evil:25 HTTP/1.1\r\nhost: evil:25\r\n\r\n")
        assert b" 204 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
        assert b" 200 " in await one.talk(GET)
        assert seen == [[b"CONNECT"], [b"GET"]]
        writer.close()


@pytest.mark.parametrize("size", range(4_000_000, 4_700_000, 100_000))
async def test_an_upstream_that_answers_without_reading_is_not_used_again(size: int) -> None:
    """Sizes around what the kernel takes: of some the worker holds the last part when the answer comes."""
    over = asyncio.Event()
    answered: list[bool] = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        if not answered:
            answered.append(True)
            await asyncio.sleep(0.3)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await over.wait()
        writer.transport.abort()

    async with worker() as one, upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"a" * size)
        await asyncio.wait_for(reader.readuntil(b"ok"), 10)
        writer.transport.abort()
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000000\r\n\r\n")
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 200_000_000:
                writer.write(b"b" * 1_000_000)
                await asyncio.wait_for(writer.drain(), 0.5)
                sent += 1_000_000
        writer.transport.abort()
        over.set()
        assert sent < 100_000_000


async def test_an_earlier_request_does_not_limit_a_tunnel() -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        while data := await reader.read(100):
            writer.write(data)

    limits = {"request_timeout": 0.5, "stream_idle_timeout": 0.7, "upgrades": frozenset(("websocket",))}
    async with worker() as one, upstream(app) as port:
        assert await one.apply(snapshot(one.port, port, http=limits)) is None
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
        await asyncio.sleep(0.1)
        writer.write(b"cd")
        await reader.readuntil(b"ok")
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(20):
            writer.write(b"x")
            assert await asyncio.wait_for(reader.readexactly(1), 3) == b"x"
            await asyncio.sleep(0.1)
        writer.close()


async def test_room_in_a_cluster_goes_to_who_waits_for_another_endpoint() -> None:
    def app(name: bytes) -> object:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/slow" in head:
                    await asyncio.sleep(4)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + name)
                if b"/close" in head:
                    await asyncio.sleep(0.3)
                    writer.close()
                    return

        return serve

    async with worker() as one, upstream(app(b"AA")) as a, upstream(app(b"BB")) as b:  # type: ignore[arg-type]
        limit = CircuitBreakers(max_connections=2)
        config = snapshot(one.port, a, b, cluster={"lb_policy": "ROUND_ROBIN", "circuit_breakers": limit})
        assert await one.apply(config) is None

        async def ask(target: bytes) -> float:
            began = time.monotonic()
            assert b" 200 " in await one.talk(b"GET %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % target)
            return time.monotonic() - began

        slow = asyncio.create_task(ask(b"/slow"))
        await asyncio.sleep(0.1)
        close = asyncio.create_task(ask(b"/close"))
        await asyncio.sleep(0.1)
        assert await ask(b"/fast") < 3  # it waits for the first endpoint, and gets the room that the second gives up
        await asyncio.gather(slow, close)
