"""TCP listeners and clusters with TLS: every combination of legs, half-close, who gets in, what a truncation becomes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config.model import DownstreamTls, SanMatcher, StringMatcher, TrustBundle, UpstreamTls, Validation
from tests.support.certificates import Authority, Leaf
from tests.support.tcp import END, echo, exchange, finish, give_key, records, reset, tcp_snapshot
from tests.support.worker import Worker, upstream, worker

CART, WEB = "spiffe://pillion.local/service/cart", "spiffe://pillion.local/service/web"
CA = Authority()
BULK = bytes(range(256)) * 4 * 1024 * 8  # 8 MiB


def accepts(uri: str) -> Validation:
    return Validation("ca", (SanMatcher("URI", StringMatcher("exact", uri)),))


async def inbound(one: Worker, port: int, *, peer: str = WEB, log: Path | None = None, **tcp: object) -> None:
    """mTLS in, plain out."""
    down = DownstreamTls("own", accepts(peer), require_client_certificate=True)
    key = await give_key(one, "own", CA.issue(CART))
    chain = {"tls": down, "transport_socket_connect_timeout": 0.5}
    secrets = {"certificates": {"own": key}, "bundles": {"ca": TrustBundle("ca", CA.pem)}}
    assert await one.apply(tcp_snapshot(one.port, port, chain=chain, tcp=tcp, log=log, **secrets)) is None


async def outbound(
    one: Worker, port: int, *, own: Leaf, peer: str = CART, log: Path | None = None, within: float = 5.0
) -> None:
    """Plain in, mTLS out."""
    key = await give_key(one, "own", own)
    cluster = {"tls": UpstreamTls("own", accepts(peer), "cart"), "connect_timeout": within}
    secrets = {"certificates": {"own": key}, "bundles": {"ca": TrustBundle("ca", CA.pem)}}
    assert await one.apply(tcp_snapshot(one.port, port, cluster=cluster, log=log, **secrets)) is None


@asynccontextmanager
async def pair(handler: object = echo, **how: object) -> AsyncIterator[tuple[Worker, Worker]]:
    """client → plain → mTLS → plain → app, through two workers."""
    async with upstream(handler) as app, worker() as near, worker() as far:  # type: ignore[arg-type]
        await inbound(far, app, **how)  # type: ignore[arg-type]
        await outbound(near, far.port, own=CA.issue(WEB))
        yield near, far


def client_context(tmp_path: Path, leaf: Leaf | None) -> ssl.SSLContext:
    """An independent TLS client: Python's own transport."""
    context = ssl.create_default_context(cadata=CA.pem)
    context.check_hostname = False
    if leaf is not None:
        context.load_cert_chain(*leaf.write(tmp_path, "client"))
    return context


async def test_bytes_and_half_close_pass_through_a_pair(tmp_path: Path) -> None:
    async with pair(log=tmp_path / "log") as (near, far):
        assert await exchange(near.port, b"hello") == b"hello" + END
        assert await exchange(near.port, b"") == END
        assert await exchange(near.port, BULK) == BULK + END
        found = await records(tmp_path / "log", 3)
        assert [(it["received"], it["sent"], it["peer"], it["flags"]) for it in found] == [
            (5, 8, WEB, "-"),
            (0, 3, WEB, "-"),
            (len(BULK), len(BULK) + 3, WEB, "-"),
        ]
        assert await far.count("downstream_tls_handshake_total", listener="main") == 3
        assert await near.count("upstream_tls_handshake_total", cluster="app", peer=CART) == 3
        assert await near.gauge("upstream_cx_active") == await far.gauge("downstream_cx_active") == 0


async def test_one_byte_at_a_time() -> None:
    async with pair() as (near, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", near.port)
        for i in range(200):
            writer.write(bytes([i]))
            assert await reader.readexactly(1) == bytes([i])
        await finish(writer)


async def test_the_app_may_end_first() -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def ends_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.set_result(await reader.read())

    async with pair(ends_first) as (near, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", near.port)
        assert await reader.read() == b"bye"
        writer.write(BULK)
        await writer.drain()
        writer.write_eof()
        assert await asyncio.wait_for(heard, 10) == BULK
        await finish(writer)


async def test_a_slow_reader_gets_everything() -> None:
    """Back-pressure over TLS both ways: the end arrives while much is still under way."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(65536):
            total += len(data)
            if total < 1 << 20:
                await asyncio.sleep(0.01)
        writer.write(b"%d" % total)

    async with pair(slow) as (near, _):
        assert await exchange(near.port, BULK) == b"%d" % len(BULK)


async def test_breaks_pass_through_a_pair_as_breaks() -> None:
    how: asyncio.Future[BaseException | bytes] = asyncio.get_running_loop().create_future()

    async def sees(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        try:
            how.set_result(await reader.read())
        except ConnectionError as error:
            how.set_result(error)

    async with pair(sees) as (near, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", near.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        reset(writer)
        assert isinstance(await asyncio.wait_for(how, 5), ConnectionResetError)


async def test_another_tls_client_is_served(tmp_path: Path) -> None:
    async with upstream(echo) as app, worker() as one:
        await inbound(one, app)
        context = client_context(tmp_path, CA.issue(WEB))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=context)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write(BULK)
        assert await reader.readexactly(len(BULK)) == BULK
        await finish(writer)  # close_notify, and then the upstream's END finds nobody


async def test_the_upstreams_end_is_close_notify(tmp_path: Path) -> None:
    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    async with upstream(bye) as app, worker() as one:
        await inbound(one, app)

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", one.port)) as plain:
                context = client_context(tmp_path, CA.issue(WEB))
                with context.wrap_socket(plain, suppress_ragged_eofs=False) as sock:
                    received = sock.recv(100)
                    assert sock.recv(100) == b""  # SSLEOFError if it were a bare FIN
                    return received

        assert await asyncio.to_thread(talk) == b"bye"


async def test_a_stream_without_its_end_is_a_broken_one(tmp_path: Path) -> None:
    """RFC 8446 §6.1: a FIN without close_notify may be an attacker's. The app must not take it for the whole."""
    how: asyncio.Future[BaseException | bytes] = asyncio.get_running_loop().create_future()

    async def sees(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        try:
            how.set_result(await reader.read())
        except ConnectionError as error:
            how.set_result(error)

    async with upstream(sees) as app, worker() as one:
        await inbound(one, app)

        def talk() -> None:
            plain = socket.create_connection(("127.0.0.1", one.port))
            with client_context(tmp_path, CA.issue(WEB)).wrap_socket(plain) as sock:
                sock.sendall(b"half")
                assert sock.recv(4) == b"half"
                socket.socket.shutdown(sock, socket.SHUT_WR)  # the TCP connection's end without that of TLS
                with contextlib.suppress(OSError):
                    sock.recv(100)

        await asyncio.to_thread(talk)
        assert isinstance(await asyncio.wait_for(how, 5), ConnectionResetError)


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [(None, "no_certificate"), (CA.issue(CART), "bad_san"), (Authority().issue(WEB), "unknown_ca")],
    ids=["none", "another name", "another CA"],
)
async def test_who_does_not_get_in(tmp_path: Path, leaf: Leaf | None, reason: str) -> None:
    reached = False

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached = True

    async with upstream(never) as app, worker() as one:
        await inbound(one, app, log=tmp_path / "log")
        # In TLS 1.3 the client hears of it with its first read, if at all.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=client_context(tmp_path, leaf))
            try:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            finally:
                writer.transport.abort()
                await finish(writer)
        await records(tmp_path / "log", 1)
        assert await one.count("downstream_tls_error_total", listener="main", reason=reason) == 1
        assert not reached


async def test_a_client_that_does_not_shake_hands(tmp_path: Path) -> None:
    async with upstream(echo) as app, worker() as one:
        await inbound(one, app, log=tmp_path / "log")
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await finish(writer)
        assert len(await exchange(one.port, b"GET / HTTP/1.1\r\n\r\n")) < 10  # an alert
        assert await one.count("downstream_tls_error_total", reason="timeout") == 1
        assert await one.count("downstream_tls_error_total", reason="plaintext") == 1
        await records(tmp_path / "log", 2)


async def test_an_upstream_that_is_somebody_else(tmp_path: Path) -> None:
    async with upstream(echo) as app, worker() as near, worker() as far:
        await inbound(far, app)
        await outbound(near, far.port, own=CA.issue(WEB), peer=WEB, log=tmp_path / "log")
        with pytest.raises(ConnectionResetError):
            await exchange(near.port, b"", half_close=False)
        assert (await records(tmp_path / "log", 1))[0]["flags"] == "UF,URX"
        assert await near.count("upstream_tls_error_total", cluster="app", reason="bad_san") == 1
        assert await near.gauge("upstream_cx_active") == 0


async def test_an_upstream_that_does_not_accept_us(tmp_path: Path) -> None:
    """TLS 1.3 tells us when our side of the handshake is over: the connection fails all the same."""
    async with upstream(echo) as app, worker() as near, worker() as far:
        await inbound(far, app)
        await outbound(near, far.port, own=Authority().issue(WEB), log=tmp_path / "log")
        with pytest.raises(ConnectionResetError):
            await exchange(near.port, b"", half_close=False)
        assert (await records(tmp_path / "log", 1))[0]["flags"] == "UF"
        assert await near.count("upstream_tls_error_total", cluster="app", reason="unknown_ca") == 1


async def test_an_upstream_that_does_not_speak_tls(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as app, worker() as near:
        await outbound(near, app, own=CA.issue(WEB), log=tmp_path / "log", within=0.3)
        with pytest.raises(ConnectionResetError):
            await exchange(near.port, b"", half_close=False)
        (record,) = await records(tmp_path / "log", 1)
        assert (record["flags"], record["ms"] < 2000) == ("UF,URX", True)
        assert await near.count("upstream_cx_connect_timeout_total", cluster="app") == 1
