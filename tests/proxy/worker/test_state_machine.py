"""The moments at which a proxy goes wrong: early answers, late bytes, dead connections, clients that leave or stall."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.config.route import DirectResponse, RetryPolicy, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.worker import channel
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: app\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app for requests without a body."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave without a goodbye. (A plain close is, to the other side, a client that still waits for its answer.)"""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def direct(body: bytes) -> RouteConfiguration:
    return RouteConfiguration(
        "r", (VirtualHost("v", ("*",), (Route(RouteMatch("prefix", "/"), DirectResponse(200, body), "d"),)),)
    )


async def test_pipelined_bytes_end_no_body_twice(one: Worker) -> None:
    """A request that waits behind a chunked one must not add a second last chunk to it: that would be a request
    of its own to the app."""
    asked, release = asyncio.Event(), asyncio.Event()
    seen = b""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += await reader.readuntil(b"\r\n0\r\n\r\n")
        asked.set()
        await release.wait()
        writer.write(OK)
        seen += await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(CHUNKED)
        await asked.wait()
        writer.write(LAST)
        await asyncio.sleep(0.05)
        release.set()
        assert statuses(await reader.read()) == [200, 200]
        writer.close()
        assert re.search(rb"\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /last ", seen)


async def test_a_client_that_never_reads_is_not_read_from_either(one: Worker) -> None:
    """Requests answered at once, answers unread: what waits must have a bound."""
    await one.apply(snapshot(one.port, http={"route_config": direct(b"x" * 1000)}))
    sock = socket.create_connection(("127.0.0.1", one.port))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 24 << 20:  # far more than the kernel's buffers hold
            async with asyncio.timeout(1):
                await loop.sock_sendall(sock, GET * 4000)
            sent += len(GET) * 4000
    sock.close()
    assert sent < 24 << 20


async def test_a_slow_reader_gets_all_of_the_last_answer(one: Worker) -> None:
    """The connection closes after this answer; what is not yet delivered still has time."""
    size = 12 << 20
    await one.apply(snapshot(one.port, http={"route_config": direct(b"x" * size)}))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", one.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=65536)
    writer.write(LAST)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(1.5)
    got = len(await reader.read())
    writer.close()
    assert got == size


async def test_timeouts_do_not_stop_the_worker(one: Worker) -> None:
    """An idle upstream connection that is closed, and a client that is refused and stays."""
    async with upstream(answer_all) as port:
        await one.apply(snapshot(one.port, port, cluster={"idle_timeout": 0.1}))
        assert statuses(await one.talk(LAST)) == [200]
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"rubbish\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.3)
        async with asyncio.timeout(2):
            assert statuses(await one.talk(LAST)) == [200]
        writer.close()
        assert await one.count("upstream_cx_total") == 2


@pytest.mark.parametrize("status", [600, 999])
async def test_a_status_beyond_the_classes(one: Worker, status: int) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Odd\r\ncontent-length: 0\r\n\r\n" % status)

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        async with asyncio.timeout(2):
            assert statuses(await one.talk(LAST)) == [status]
        await one.at_rest()


async def test_an_answer_before_the_end_of_the_request(one: Worker) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\nhello")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        for _ in range(20):  # still sending: the answer must survive that
            writer.write(b"x" * 10000)
            await asyncio.sleep(0)
        assert await reader.read() == b"no"
        writer.close()
        await one.at_rest()


async def test_an_endpoint_that_closes_what_it_accepts_has_not_taken_the_request(one: Worker) -> None:
    """As good as refused: tried elsewhere, also for methods that may not be repeated."""

    async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)

    async with upstream(slams) as bad, upstream(app) as good:
        await one.apply(snapshot(one.port, bad, good))
        # Where the close is seen before the request is sent; a race that the worker can lose only on the first.
        answers = [statuses(await one.talk(GET + GET + LAST)) for _ in range(10)]
        assert all(set(answer) <= {200, 503} for answer in answers)
        await one.at_rest()


async def test_a_dead_idle_connection_is_not_lent(one: Worker) -> None:
    """The app's close and the client's POST arrive in the same turn of the loop: the close was first."""
    closing = asyncio.Event()
    connections = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if connections == 1:
            await closing.wait()
        else:
            await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(GET)
        await reader.readuntil(b"ok")
        os.kill(one.process.pid, signal.SIGSTOP)
        closing.set()
        await asyncio.sleep(0.1)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await asyncio.sleep(0.1)
        os.kill(one.process.pid, signal.SIGCONT)
        assert statuses(await reader.read()) == [200]
        writer.close()


async def test_a_stale_connection_is_replaced_by_a_fresh_one(one: Worker) -> None:
    """Not by the next stale one of the pool."""
    both = asyncio.Barrier(2)
    connections = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        number = connections
        await reader.readuntil(b"\r\n\r\n")
        if number <= 2:
            await both.wait()
        writer.write(OK)
        if number <= 2:
            await reader.readuntil(b"\r\n\r\n")  # and dies on the second request
        else:
            await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        await asyncio.gather(one.talk(LAST), one.talk(LAST))
        assert statuses(await one.talk(LAST)) == [200]


async def test_a_retry_while_the_body_still_arrives(one: Worker) -> None:
    bodies: list[bytes] = []
    first = True

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        await reader.readuntil(b"\r\n\r\n")
        if first:
            first = False
            await reader.readexactly(5)
            return
        bodies.append(await reader.readexactly(10))
        writer.write(OK)
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, action={"retry": RetryPolicy(frozenset(("reset",)), 2)}))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhello")
        await asyncio.sleep(0.1)
        writer.write(b"world")
        assert statuses(await reader.read()) == [200]
        writer.close()
        assert bodies == [b"helloworld"]


@pytest.mark.parametrize("stage", ["pending", "connecting", "sent", "half"])
async def test_a_client_that_leaves(one: Worker, stage: str) -> None:
    started, gone = asyncio.Event(), asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        started.set()
        if stage == "half":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await reader.read()
        gone.set()

    blackhole = socket.socket()  # its backlog is full: connecting to it goes on for ever
    blackhole.bind(("127.0.0.1", 0))
    blackhole.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(blackhole.getsockname())
        fillers.append(filler)
    async with upstream(app) as port:
        target = blackhole.getsockname()[1] if stage == "connecting" else port
        limits = CircuitBreakers(max_connections=1)
        await one.apply(snapshot(one.port, target, cluster={"circuit_breakers": limits, "connect_timeout": 0.5}))
        clients = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(3 if stage == "pending" else 1)]
        for _, writer in clients:
            writer.write(GET)
        if stage == "connecting":
            await asyncio.sleep(0.05)
        else:
            await started.wait()
        if stage == "half":
            await clients[0][0].readuntil(b"half")
        for _, writer in clients:
            reset(writer)
        await one.at_rest()
        if stage != "connecting":
            await gone.wait()
        assert await one.count("response_flags_total", flag="DC") == len(clients)
        assert await one.gauge("downstream_cx_active") == 0
    for sock in (blackhole, *fillers):
        sock.close()


async def test_requests_that_gave_up_waiting_are_not_kept(one: Worker) -> None:
    """One connection, held by a long answer: those who wait for it and time out must not pile up."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhold")
        await reader.read()

    async with upstream(app) as port:
        limits = CircuitBreakers(max_connections=1, max_pending_requests=10)
        await one.apply(snapshot(one.port, port, cluster={"circuit_breakers": limits}, action={"timeout": 0}))
        holder_reader, holder = await asyncio.open_connection("127.0.0.1", one.port)
        holder.write(GET)
        await holder_reader.readuntil(b"hold")
        for _ in range(5):
            clients = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(10)]
            for _, writer in clients:
                writer.write(GET)
            await asyncio.sleep(0.05)
            for _, writer in clients:
                reset(writer)
            await asyncio.sleep(0.05)
        assert await one.count("response_flags_total", flag="UO") == 0
        assert await one.gauge("upstream_rq_active") == 1
        holder.close()


async def test_a_gauge_goes_back_to_zero_without_any_request(one: Worker) -> None:
    """The agent must hear of a connection's end even when nothing else is counted."""
    await one.apply(snapshot(one.port, http={"route_config": direct(b"hi")}))
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(GET)
    await reader.readuntil(b"hi")
    assert await one.gauge("downstream_cx_active") == 1
    writer.close()
    key = ("downstream_cx_active", (("listener", "main"),))
    async with asyncio.timeout(3):
        while one.gauges[key]:
            await one.expect(channel.Stats)


async def test_errors_behind_pipelined_requests(one: Worker) -> None:
    async with upstream(answer_all) as port:
        await one.apply(snapshot(one.port, port))
        assert statuses(await one.talk(GET + GET + b"BAD\r\n\r\n")) == [200, 200, 400]
        assert statuses(await one.talk(GET + b"POST / HTTP/1.1\r\nhost: a\r\n\r\n" + GET + LAST)) == [200] * 4
        assert statuses(await one.talk(GET * 3, half_close=True)) == [200] * 3
        await one.apply(snapshot(one.port, free_port()))
        assert statuses(await one.talk(GET + GET + LAST)) == [503] * 3


async def test_a_truncated_answer_that_ends_with_the_connection_is_reset(one: Worker) -> None:
    """To an HTTP/1.0 client a clean end would mean that it has it all."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, http={"accept_http_10": True}))
        with pytest.raises(ConnectionResetError):
            await one.talk(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")


async def test_a_message_that_fails_does_not_take_the_others_with_it(one: Worker) -> None:
    await one.send(channel.LogLevel("no such level"))
    assert await one.apply(snapshot(one.port, http={"route_config": direct(b"hi")})) is None
    assert statuses(await one.talk(LAST)) == [200]
