"""TCP listeners of a real worker: what passes, how it ends, and what is counted and logged of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config.cluster import CircuitBreakers, Cluster, Endpoint, LoadAssignment, OutlierDetection
from proxy.config.model import Address
from proxy.config.route import DirectResponse, Route, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.support.tcp import END, descriptors, echo, exchange, finish, pipes, records, reset, swallow, tcp_snapshot
from tests.support.wait import until
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

BULK = bytes(range(256)) * 4 * 1024 * 16  # 16 MiB


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def relay(*handlers: object, **how: object) -> AsyncIterator[Worker]:
    """A worker with a TCP listener to an echo."""
    async with upstream(echo) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port, **how)) is None  # type: ignore[arg-type]
        yield one


async def test_bytes_pass_both_ways_and_are_counted_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with relay(log=log) as one:
        assert await exchange(one.port, b"hello") == b"hello" + END
        (record,) = await records(log, 1)
        assert record.pop("ms") >= 0
        assert record.pop("client").startswith("127.0.0.1:")
        assert record.pop("host").startswith("127.0.0.1:")
        assert record == {
            "flags": "-", "received": 5, "sent": 8, "cluster": "app", "peer": None, "attempts": 1,
            "status": 0, "protocol": None, "method": None, "header": None,
        }  # fmt: skip
        assert await one.count("downstream_cx_total", listener="main") == 1
        assert await one.count("downstream_cx_rx_bytes_total", listener="main") == 5
        assert await one.count("downstream_cx_tx_bytes_total", listener="main") == 8
        assert await one.count("upstream_cx_total", cluster="app") == 1
        assert await one.count("upstream_cx_tx_bytes_total", cluster="app") == 5
        assert await one.count("upstream_cx_rx_bytes_total", cluster="app") == 8
        assert await one.gauge("downstream_cx_active") == 0
        assert await one.gauge("upstream_cx_active") == 0


async def test_bulk_passes_unchanged_through_a_pipe() -> None:
    async with relay() as one:
        before = pipes(one.process.pid)
        assert await exchange(one.port, BULK) == BULK + END
        assert 1 <= len(pipes(one.process.pid) - before) <= 2  # lent by turns, and kept for the next
        size = len(BULK)
        assert await one.count("downstream_cx_rx_bytes_total") == size
        assert await one.count("downstream_cx_tx_bytes_total") == size + len(END)


async def test_one_byte_at_a_time() -> None:
    async with relay() as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        for i in range(200):
            writer.write(bytes([i]))
            assert await reader.readexactly(1) == bytes([i])
        await finish(writer)


async def test_the_upstream_may_end_first() -> None:
    """Half-close from the other side: it says its last word, and still hears the client's."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def ends_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.set_result(await reader.read())

    async with upstream(ends_first) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port)) is None
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        assert await reader.read() == b"bye"
        writer.write(b"x" * 100_000)
        await writer.drain()
        writer.write(b"last")
        writer.write_eof()
        assert await asyncio.wait_for(heard, 5) == b"x" * 100_000 + b"last"
        await finish(writer)


async def test_a_slow_reader_holds_the_sender_back() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with upstream(pour) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port)) is None
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=65536)
        before = -1
        async with asyncio.timeout(10):
            while before != sent or not sent:  # until nothing moves any more
                before = sent
                await asyncio.sleep(0.3)
        await reader.readexactly(1 << 20)
        reset(writer)


async def test_an_endpoint_that_refuses_is_passed_over(tmp_path: Path) -> None:
    log, dead = tmp_path / "log", free_port()
    async with upstream(echo) as port, worker() as one:
        # Round robin begins anywhere, and a second attempt takes the next turn: at most the first one meets no refusal.
        assert await one.apply(tcp_snapshot(one.port, dead, port, tcp={"max_connect_attempts": 2}, log=log)) is None
        for _ in range(2):
            assert await exchange(one.port, b"hello") == b"hello" + END
        found = await records(log, 2)
        assert (found[1]["flags"], found[1]["attempts"]) == ("UF", 2)
        assert (found[0]["flags"], found[0]["attempts"]) in (("-", 1), ("UF", 2))
        assert {it["host"] for it in found} == {f"127.0.0.1:{port}"}
        refusals = sum(it["flags"] == "UF" for it in found)
        assert await one.count("upstream_cx_connect_fail_total", cluster="app") == refusals
        assert await one.count("response_flags_total", flag="UF") == refusals


async def test_attempts_are_bounded_and_the_client_is_reset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with worker() as one:
        config = tcp_snapshot(one.port, free_port(), free_port(), tcp={"max_connect_attempts": 3}, log=log)
        assert await one.apply(config) is None
        with pytest.raises(ConnectionResetError):
            await exchange(one.port, b"", half_close=False)
        (record,) = await records(log, 1)
        assert (record["flags"], record["attempts"], record["received"]) == ("UF,URX", 3, 0)
        assert await one.count("upstream_cx_connect_fail_total") == 3
        assert await one.count("upstream_cx_connect_attempts_exceeded_total", cluster="app") == 1
        assert await one.gauge("upstream_cx_active") == 0


async def test_no_endpoint_at_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with worker() as one:
        assert await one.apply(tcp_snapshot(one.port, log=log)) is None
        with pytest.raises(ConnectionResetError):
            await exchange(one.port, b"", half_close=False)
        (record,) = await records(log, 1)
        assert (record["flags"], record["host"], record["cluster"], record["attempts"]) == ("UH", None, "app", 0)
        assert await one.count("upstream_cx_none_healthy_total", cluster="app") == 1


async def test_the_clusters_connections_are_limited(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with relay(cluster={"circuit_breakers": CircuitBreakers(max_connections=1)}, log=log) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        with pytest.raises(ConnectionResetError):
            await exchange(one.port, b"", half_close=False)
        assert (await records(log, 1))[0]["flags"] == "UO"
        assert await one.count("upstream_cx_overflow_total", cluster="app") == 1
        await finish(writer)
        await records(log, 2)
        assert await exchange(one.port, b"again") == b"again" + END


async def test_a_connect_that_takes_too_long(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with worker() as one:
        config = tcp_snapshot(one.port, 9, cluster={"connect_timeout": 0.2}, log=log)
        # TEST-NET-1 (RFC 5737): nobody answers, or the network says at once that there is no way.
        nowhere = LoadAssignment("app", (Endpoint(Address("192.0.2.1", 9)),))
        assert await one.apply(type(config)(config.listeners, {}, config.clusters, {"app": nowhere})) is None
        with pytest.raises(ConnectionResetError):
            await exchange(one.port, b"", half_close=False)
        (record,) = await records(log, 1)
        assert (record["flags"], record["host"]) == ("UF,URX", "192.0.2.1:9")
        assert record["ms"] < 2000


async def test_failed_connects_eject_an_endpoint() -> None:
    dead = free_port()
    detection = OutlierDetection(consecutive_5xx=2, max_ejection_percent=50)
    async with upstream(echo) as port, worker() as one:
        config = tcp_snapshot(
            one.port, dead, port, tcp={"max_connect_attempts": 2}, cluster={"outlier_detection": detection}
        )
        assert await one.apply(config) is None
        for _ in range(12):
            assert await exchange(one.port, b"x") == b"x" + END
        assert await one.count("upstream_cx_connect_fail_total") == 2  # then it is out


async def test_a_reset_of_the_upstream_is_one_for_the_client(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        reset(writer)

    async with upstream(breaks) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port, log=log)) is None
        with pytest.raises(ConnectionResetError):
            await exchange(one.port, b"hello", half_close=False)
        (record,) = await records(log, 1)
        assert (record["flags"], record["received"], record["sent"]) == ("UR", 5, 0)


async def test_a_client_that_breaks_off_breaks_the_upstream(tmp_path: Path) -> None:
    log = tmp_path / "log"
    how: asyncio.Future[BaseException | bytes] = asyncio.get_running_loop().create_future()

    async def sees(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        try:
            how.set_result(await reader.read())
        except ConnectionError as error:
            how.set_result(error)

    async with upstream(sees) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port, log=log)) is None
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        reset(writer)
        assert isinstance(await asyncio.wait_for(how, 5), ConnectionResetError)
        (record,) = await records(log, 1)
        assert (record["flags"], record["received"], record["sent"]) == ("-", 5, 5)


async def test_idle_connections_are_closed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with relay(tcp={"idle_timeout": 0.4}, log=log) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        began = asyncio.get_running_loop().time()
        for _ in range(4):  # bytes in either direction keep it open
            await asyncio.sleep(0.2)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert 1.1 < asyncio.get_running_loop().time() - began < 3
        await finish(writer)
        assert (await records(log, 1))[0]["flags"] == "-"
        assert await one.count("downstream_cx_idle_timeout_total", listener="main") == 1


async def test_a_connection_has_a_longest_life(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with relay(tcp={"max_downstream_connection_duration": 0.5}, log=log) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        ended = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(5):
            while not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
        assert (await ended).strip(b"x") == b""
        await finish(writer)
        assert (await records(log, 1))[0]["flags"] == "DT"
        assert await one.count("downstream_cx_max_duration_reached_total", listener="main") == 1


async def test_clusters_by_weight() -> None:
    async with upstream(echo) as port, upstream(swallow) as other, worker() as one:
        shares = {"clusters": (WeightedCluster("app", 1), WeightedCluster("other", 1))}
        config = tcp_snapshot(one.port, port, tcp=shares)
        clusters = {**config.clusters, "other": Cluster("other", "STATIC", "other")}
        assignment = LoadAssignment("other", (Endpoint(Address("127.0.0.1", other)),))
        both = type(config)(config.listeners, {}, clusters, {**config.assignments, "other": assignment})
        assert await one.apply(both) is None
        answers = {await exchange(one.port, b"abc") for _ in range(40)}
        assert answers == {b"abc" + END, b"3"}


async def test_connections_outlive_an_update_and_an_update_the_protocol() -> None:
    async with upstream(echo) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port)) is None
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        everything = Route(RouteMatch("prefix", "/"), DirectResponse(200, b"http"))
        routes = RouteConfiguration("r", (VirtualHost("all", ("*",), (everything,)),))
        assert await one.apply(snapshot(one.port, port, http={"route_config": routes})) is None
        answer = await one.talk(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert answer.endswith(b"http")
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        assert await one.apply(tcp_snapshot(one.port, port)) is None
        assert await exchange(one.port, b"tcp") == b"tcp" + END
        writer.write_eof()
        assert await reader.read() == END
        await finish(writer)


async def test_draining_lets_connections_run_until_its_time_is_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with relay(log=log) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        ended = await asyncio.open_connection("127.0.0.1", one.port)
        for stream in (writer, ended[1]):
            stream.write(b"x")
        assert await reader.readexactly(1) == await ended[0].readexactly(1) == b"x"
        await one.send(channel.Drain(1.0))

        await until(lambda: not accepts(one.port), 5)
        writer.write(b"during the drain")
        assert await reader.readexactly(16) == b"during the drain"
        ended[1].write_eof()
        assert await ended[0].read() == END
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await asyncio.wait_for(one.process.wait(), 5)
        await finish(writer)
        await finish(ended[1])
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert sorted(it["received"] for it in lines if it["received"]) == [1, 17]


async def test_what_a_gone_listener_left_lives_on_and_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with upstream(echo) as port, worker() as one:
        assert await one.apply(tcp_snapshot(one.port, port, log=log)) is None
        connections = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(2)]
        for reader, writer in connections:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        assert await one.apply(Snapshot()) is None
        (first, to_first), (second, to_second) = connections
        to_first.write(b"still here")
        assert await first.readexactly(10) == b"still here"
        to_first.write_eof()
        assert await first.read() == END
        assert (await records(log, 1))[0]["received"] == 11
        await one.send(channel.Drain(0.2))
        assert await asyncio.wait_for(second.read(), 5) == b""
        await asyncio.wait_for(one.process.wait(), 5)
        assert [it["received"] for it in await records(log, 2)] == [11, 1]
        await finish(to_first)
        await finish(to_second)


async def test_descriptors_are_let_go_after_thousands_of_connections(tmp_path: Path) -> None:
    """However they end: by half-close, by a reset, by a refusal, with bytes under way, in bulk."""
    log = tmp_path / "log"
    async with upstream(echo) as port, worker() as one:
        config = tcp_snapshot(one.port, port, free_port(), tcp={"max_connect_attempts": 2}, log=log)
        assert await one.apply(config) is None
        assert await exchange(one.port, b"warm") == b"warm" + END
        await asyncio.gather(*(exchange(one.port, BULK[: 1 << 20]) for _ in range(4)))  # pipes are there now
        await until(lambda: log.exists() and log.read_text().count("\n") == 5, 5)
        before = descriptors(one.process.pid)

        async def one_of(i: int) -> None:
            if i % 4 == 0:
                _, writer = await asyncio.open_connection("127.0.0.1", one.port)
                writer.write(b"x" * 100_000)
                await asyncio.sleep(0)
                reset(writer)
            elif i % 50 == 1:
                _, writer = await asyncio.open_connection("127.0.0.1", one.port)
                writer.write(BULK[: 1 << 20])
                await asyncio.sleep(0.01)
                reset(writer)  # with the pipe full
            else:
                assert await exchange(one.port, b"hello") == b"hello" + END

        for start in range(0, 2000, 25):
            await asyncio.gather(*(one_of(i) for i in range(start, start + 25)))
        assert len(await records(log, 2005)) == 2005
        assert await one.gauge("downstream_cx_active") == await one.gauge("upstream_cx_active") == 0
        # A pipe that was closed with bytes in it may have been replaced, and there may be one more in use at a time.
        assert descriptors(one.process.pid) <= before + 2 * 8
