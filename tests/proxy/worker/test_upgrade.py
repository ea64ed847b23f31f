"""Upgrade through a real worker: what is passed on, what becomes of the connection, how a tunnel ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.worker import channel
from tests.support.tcp import descriptors, records, reset
from tests.support.tunnels import SWITCHING, UPGRADE, App, tunnel, upgrading
from tests.support.wait import until
from tests.support.worker import Worker, upstream, worker

LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"


def buffers() -> int:
    """Bytes that the kernel may hold for one connection, both ends together."""
    return sum(int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in "rw")


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


def asking(
    upgrade: bytes = b"websocket", connection: bytes = b"upgrade", version: bytes = b"1.1", more: bytes = b""
) -> bytes:
    return b"GET / HTTP/%b\r\nhost: app\r\nconnection: %b\r\nupgrade: %b\r\n%b\r\n" % (
        version,
        connection,
        upgrade,
        more,
    )


async def test_bytes_pass_both_ways_and_are_counted_and_logged_once(one: Worker, tmp_path: Path) -> None:
    app, log = App(), tmp_path / "log"
    async with upstream(app) as port:
        assert await one.apply(upgrading(one.port, port, log=log)) is None
        async with tunnel(one.port) as client:
            assert client.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"connection: upgrade\r\nupgrade: websocket\r\n" in client.head
            assert await client.exchange(b"hello") == b"hello"
            assert await client.exchange(b"GET / HTTP/1.1\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"
            assert await one.gauge("upstream_rq_active") == 1
            assert await one.gauge("upstream_cx_active") == 1
            assert await one.gauge("downstream_cx_upgrades_active") == 1
            assert not log.read_text()
            client.writer.write_eof()
            assert await client.rest() == b"bye"
        (record,) = await records(log, 1)
        assert (record["status"], record["method"], record["flags"]) == (101, "GET", "-")
        assert (record["received"], record["sent"]) == (23, 26)
        for gauge in ("upstream_rq_active", "upstream_cx_active", "downstream_cx_upgrades_active"):
            assert await one.gauge(gauge) == 0, gauge
        assert await one.count("downstream_cx_upgrades_total", listener="main") == 1
        assert await one.count("downstream_rq_total", listener="main", response_code_class="1xx") == 1
        assert await one.count("upstream_rq_total", cluster="app", response_code_class="1xx") == 1
    assert app.ends == ["end"]
    assert b"connection: upgrade\r\nupgrade: websocket\r\n" in app.heads[0]


async def test_bytes_behind_the_request_arrive_behind_the_switch(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port))
        async with tunnel(one.port, UPGRADE + b"early" * 50_000) as client:
            assert await asyncio.wait_for(client.reader.readexactly(250_000), 10) == b"early" * 50_000


async def test_a_client_that_ends_before_the_switch_still_gets_its_answer(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port))
        answer = await one.talk(UPGRADE + b"early", half_close=True)
        assert answer.endswith(b"\r\n\r\nearlybye")
        assert await one.talk(UPGRADE, half_close=True) == answer.replace(b"early", b"")
    assert app.ends == ["end", "end"]


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        (asking(b"WebSocket"), b"websocket"),
        (asking(b"websocket, x"), b"websocket"),
        (asking(b"x, websocket"), b"websocket"),
        (asking(more=b"upgrade: x\r\n"), b"websocket"),
        (asking(connection=b"Upgrade, foo", more=b"foo: 1\r\n"), b"websocket"),
        (asking(connection=b"keep-alive, Upgrade"), b"websocket"),
        (asking(b"x"), None),
        (asking(b"h2c", b"upgrade, http2-settings", more=b"http2-settings: AAA\r\n"), None),
        (asking(b"h2c, websocket", b"upgrade, http2-settings", more=b"http2-settings: AAA\r\n"), b"websocket"),
        (asking(connection=b"keep-alive"), None),
        (asking(version=b"1.0"), None),
    ],
)
async def test_only_what_is_allowed_is_passed_on(one: Worker, request_: bytes, asked: bytes | None) -> None:
    app = App(SWITCHING if asked else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    http = {"upgrades": frozenset(("websocket", "h2c")), "accept_http_10": True}
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, http=http))
        async with tunnel(one.port, request_) as client:
            assert client.head.split()[1] == (b"101" if asked else b"200")
    (head,) = app.heads
    found = [line for line in head.split(b"\r\n") if line.split(b":")[0] in (b"upgrade", b"foo", b"http2-settings")]
    assert found == ([b"upgrade: " + asked] if asked else [])
    assert (b"connection: upgrade\r\n" in head) is (asked is not None)


@pytest.mark.parametrize(
    ("listener", "route", "switches"), [(True, None, 1), (True, False, 0), (False, True, 1), (False, None, 0)]
)
async def test_a_route_goes_before_its_listener(one: Worker, listener: bool, route: bool | None, switches: int) -> None:
    app = App()
    http = {"upgrades": frozenset(("websocket",) if listener else ())}
    action = {"upgrades": () if route is None else (("websocket", route),)}
    app.answer = SWITCHING if switches else b"HTTP/1.1 204 No Content\r\n\r\n"
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, http=http, action=action))
        async with tunnel(one.port) as client:
            assert client.head.split()[1] == (b"101" if switches else b"204")
    assert (b"upgrade" in app.heads[0]) is bool(switches)


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"426 Upgrade Required"])
async def test_a_refused_upgrade_is_an_ordinary_answer(one: Worker, status: bytes) -> None:
    app = App(b"HTTP/1.1 " + status + b"\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 2\r\n\r\nno")
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port))
        answer = await one.talk(UPGRADE + LAST)
        assert answer.count(b"HTTP/1.1 " + status) == 2
        assert answer.count(b"connection: close") == 1
        assert b"upgrade: x" not in answer
        assert await one.count("upstream_cx_total", cluster="app") == 1


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (LAST, SWITCHING),
        (UPGRADE, SWITCHING.replace(b"websocket", b"other")),
        (UPGRADE, SWITCHING.replace(b"websocket", b"websocket, other")),
        (UPGRADE, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (UPGRADE, SWITCHING.replace(b"Connection: Upgrade\r\n", b"")),
    ],
)
async def test_a_switch_that_nobody_asked_for_is_a_502(one: Worker, request_: bytes, answer: bytes) -> None:
    async with upstream(App(answer)) as port:
        await one.apply(upgrading(one.port, port))
        async with tunnel(one.port, request_) as client:
            assert client.head.startswith(b"HTTP/1.1 502 ")
        await one.at_rest()
        assert await one.gauge("upstream_cx_active") == 0
        assert await one.count("response_flags_total", flag="UPE") == 1


async def test_the_upstreams_end_reaches_a_slow_client_to_the_last_byte(one: Worker) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHING + b"x" * 30_000_000)
        await writer.drain()

    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port))
        async with tunnel(one.port) as client:
            await asyncio.sleep(1.5)  # longer than a closing connection lingers
            assert len(await client.rest()) == 30_000_000
        await one.at_rest()
        assert await one.gauge("upstream_cx_active") == 0


@pytest.mark.parametrize("greedy", ["client", "upstream"])
async def test_a_side_that_does_not_read_stops_the_other(one: Worker, greedy: str) -> None:
    async def flood(writer: asyncio.StreamWriter) -> int:
        sent = 0
        try:
            while sent < 200_000_000:
                writer.write(b"x" * 65536)
                await asyncio.wait_for(writer.drain(), 1)
                sent += 65536
        except TimeoutError:
            pass
        return sent

    sent: list[int] = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHING)
        if greedy == "upstream":
            sent.append(await flood(writer))
        await asyncio.Event().wait()

    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port))
        async with tunnel(one.port, limit=65536) as client:
            if greedy == "client":
                sent.append(await flood(client.writer))
            await until(lambda: bool(sent), 30)
            kernel = buffers()
            assert sent[0] < 2 * kernel + 10_000_000, "two pairs of socket buffers, and what the worker holds"


async def test_a_reset_is_passed_on(one: Worker, tmp_path: Path) -> None:
    app, log = App(), tmp_path / "log"
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, log=log))
        async with tunnel(one.port) as client:
            await client.exchange(b"hello")
            reset(client.writer)
            await until(lambda: app.ends == ["reset"], 5)
        (record,) = await records(log, 1)
        assert (record["status"], record["flags"], record["received"]) == (101, "DC", 5)
        await one.at_rest()
        assert await one.gauge("upstream_cx_active") == 0


async def test_an_upstream_that_breaks_off_is_not_taken_for_one_that_ends(one: Worker, tmp_path: Path) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHING)
        await reader.readexactly(1)
        reset(writer)

    log = tmp_path / "log"
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, log=log))
        async with tunnel(one.port) as client:
            client.writer.write(b"x")
            assert await client.rest() == b"RESET"
        (record,) = await records(log, 1)
        assert (record["status"], record["flags"]) == (101, "UC")
        await one.at_rest()
        assert await one.gauge("downstream_cx_active") == 0


async def test_the_routes_timeout_ends_with_the_switch_and_the_idle_timeout_does_not(
    one: Worker, tmp_path: Path
) -> None:
    app, log = App(), tmp_path / "log"
    async with upstream(app) as port:
        config = upgrading(one.port, port, log=log, action={"timeout": 0.2}, http={"stream_idle_timeout": 0.5})
        await one.apply(config)
        loop = asyncio.get_running_loop()
        async with tunnel(one.port) as client:
            begun = loop.time()
            while loop.time() < begun + 1.2:
                await client.exchange(b"x")
                await asyncio.sleep(0.05)
            begun = loop.time()
            assert await client.rest() == b"RESET"
            assert 0.4 <= loop.time() - begun < 3
        (record,) = await records(log, 1)
        assert (record["status"], record["flags"]) == (101, "SI")
        assert app.ends == ["reset"]
        assert await one.gauge("upstream_cx_active") == 0


async def test_an_upstream_that_does_not_answer_is_a_timeout(one: Worker) -> None:
    async with upstream(App(b"HTTP/1.1 103 Early Hints\r\n\r\n")) as port:
        await one.apply(upgrading(one.port, port, action={"timeout": 0.2}))
        assert b" 504 " in await one.talk(UPGRADE + LAST)


async def test_a_tunnel_goes_on_until_the_drain_time_is_over(one: Worker, tmp_path: Path) -> None:
    app, log = App(), tmp_path / "log"
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, log=log))
        async with tunnel(one.port) as client:
            await one.send(channel.Drain(1.0))
            await asyncio.sleep(0.5)
            assert await client.exchange(b"still here") == b"still here"
            assert await client.rest() == b"RESET"
            assert await asyncio.wait_for(one.process.wait(), 5) == 0
        (record,) = await records(log, 1)
        assert (record["status"], record["received"]) == (101, 10)
    assert app.ends == ["reset"]


async def test_a_drain_ends_with_the_last_tunnel(one: Worker) -> None:
    async with upstream(App()) as port:
        await one.apply(upgrading(one.port, port))
        async with tunnel(one.port) as client:
            await one.send(channel.Drain(60))
            assert await client.exchange(b"still here") == b"still here"
            client.writer.write_eof()
            assert await client.rest() == b"bye"
            assert await asyncio.wait_for(one.process.wait(), 5) == 0


async def test_limits_count_a_tunnel_as_long_as_it_lives(one: Worker) -> None:
    app = App()
    limits: dict[str, Any] = {"circuit_breakers": CircuitBreakers(max_requests=1)}
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, cluster=limits))
        async with tunnel(one.port):
            assert b" 503 " in await one.talk(LAST)
        await one.at_rest()
        async with tunnel(one.port) as client:
            assert await client.exchange(b"x") == b"x"


async def test_whatever_way_tunnels_end_nothing_is_left(one: Worker, tmp_path: Path) -> None:
    """A client or an upstream that ends or breaks off, before or behind the switch, at any point of a transfer."""
    draw = random.Random(7)

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        how = draw.randrange(6)
        if how == 0:
            reset(writer)
            return
        writer.write(SWITCHING + b"x" * draw.choice((0, 10, 300_000)))
        if how == 1:
            return
        if how == 2:
            await reader.read(100)
            reset(writer)
            return
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def client() -> None:
        how = draw.randrange(5)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with tunnel(one.port, UPGRADE + b"early" * draw.choice((0, 1, 20_000))) as peer:
                peer.writer.write(b"y" * draw.choice((1, 300_000)))
                if how == 0:
                    reset(peer.writer)
                elif how < 3:
                    await asyncio.wait_for(peer.reader.read(draw.choice((1, 200_000))), 10)
                else:
                    peer.writer.write_eof()
                    await peer.rest()

    log, count = tmp_path / "log", 300
    # A reset that comes together with data may be noticed only when something is written, or by a timeout.
    timeouts = {"request_headers_timeout": 1.0, "stream_idle_timeout": 3.0}
    async with upstream(app) as port:
        await one.apply(upgrading(one.port, port, log=log, http=timeouts))
        before = descriptors(one.process.pid)
        for _ in range(count // 30):
            await asyncio.gather(*[client() for _ in range(30)])
        async with asyncio.timeout(15):
            while await one.gauge("upstream_cx_active") or await one.gauge("downstream_cx_active"):  # noqa: ASYNC110  # another process's gauges
                await asyncio.sleep(0.05)
        assert await one.gauge("upstream_rq_active") == 0
        assert descriptors(one.process.pid) <= before
        await until(lambda: log.read_text().count('"status":101') > count / 2, 5)
        async with tunnel(one.port) as peer:
            assert peer.head.startswith(b"HTTP/1.1 ")
