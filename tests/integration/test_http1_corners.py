"""HTTP/1.1 through a real worker where time and order matter: pipelines, early answers, half a head, old clients."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from tests.support.worker import Worker, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port to which connecting goes on for ever: its backlog is full."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listening.getsockname())
    try:
        yield listening.getsockname()[1]
    finally:
        for sock in (listening, *fillers):
            sock.close()


async def test_a_connect_that_takes_too_long(one: Worker) -> None:
    with black_hole() as port:
        await one.apply(snapshot(one.port, port, cluster={"connect_timeout": 0.2}, action={"retry": None}))
        answer = await one.talk(LAST)
    assert statuses(answer) == [503]
    assert b"no connection to 127.0.0.1:%d within 0.2s" % port in answer
    assert await one.count("response_flags_total", flag="UF") == 1


async def test_a_hundred_pipelined_requests_of_different_latencies(one: Worker) -> None:
    """Heads, bodies by length and by chunks, answered by apps that are slow and fast in turns: in order all the same."""
    rng = random.Random(3)

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"content-length: 5" in head:
                assert await reader.readexactly(5) == b"hello"
            elif b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            await asyncio.sleep(rng.choice((0, 0, 0.005, 0.01)))
            path = head.split(b" ", 2)[1]
            if rng.random() < 0.5:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(path), path))

    requests = []
    for number in range(100):
        start = b"POST /%d/ HTTP/1.1\r\nhost: app\r\n" % number
        framing = (b"content-length: 5\r\n\r\nhello", b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        requests.append(start + (framing[number % 2] if number % 3 else b"\r\n"))
    async with upstream(app) as first, upstream(app) as second:
        await one.apply(snapshot(one.port, first, second))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        stream = b"".join(requests) + LAST
        for start in range(0, len(stream), 777):  # cuts through heads and bodies
            writer.write(stream[start : start + 777])
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert statuses(answer) == [200] * 101
    assert [int(number) for number in re.findall(rb"/(\d+)/", answer)] == list(range(100))


async def test_trailers_both_ways(one: Worker) -> None:
    seen = b""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"x-up: 1\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n")
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        answer = await one.talk(
            b"POST / HTTP/1.1\r\nhost: app\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nX-Up: 1\r\n\r\n"
        )
    assert seen.endswith(b"5\r\nhello\r\n0\r\nx-up: 1\r\n\r\n")
    assert answer.endswith(b"2\r\nok\r\n0\r\nx-down: 2\r\n\r\n")


@pytest.mark.parametrize("framing", [b"content-length: 100000000", b"transfer-encoding: chunked"])
async def test_a_large_early_answer_to_a_client_that_sends_on(one: Worker, framing: bytes) -> None:
    """Answered before the request's end: the client gets all of the answer, though it never stops sending."""
    size = 3_000_000

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)

        async def send() -> None:
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\n" + framing + b"\r\n\r\n")
            while True:
                writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)

        sending = asyncio.create_task(send())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await asyncio.wait_for(reader.readexactly(size), 10)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
        await one.at_rest()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert body == b"x" * size


async def test_an_expectation_is_met_before_the_body_and_a_refusal_does_not_wait_for_it(one: Worker) -> None:
    expecting = b"PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    await one.apply(snapshot(one.port))  # no endpoint: 503 at once
    assert statuses(await one.talk(expecting))[-1] == 503
    assert statuses(await one.talk(expecting.replace(b"100-continue", b"tea"))) == [417]
    async with upstream(answer_all) as port:
        await one.apply(snapshot(one.port, port, http={"accept_http_10": True}))
        old = await one.talk(expecting.replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc")
        assert statuses(old) == [200]  # RFC 9110 §10.1.1: no 100 to an HTTP/1.0 client


async def test_half_a_head_behind_a_request_is_bounded_like_any_other(one: Worker) -> None:
    async with upstream(answer_all) as port:
        await one.apply(snapshot(one.port, port, http={"request_headers_timeout": 0.3}))
        for behind in (b"G", b"GET / HTTP/1.1\r\nhos"):
            answer = await asyncio.wait_for(one.talk(GET + behind), 5)
            assert statuses(answer) == [200, 408]


async def test_an_http_1_0_client_that_keeps_its_connection(one: Worker) -> None:
    async with upstream(answer_all) as port:
        await one.apply(snapshot(one.port, port, http={"accept_http_10": True}))
        old = b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"
        answer = await one.talk(old + old + b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    assert statuses(answer) == [200] * 3
    assert answer.count(b"connection: keep-alive") == 2
    assert answer.count(b"connection: close") == 1
    assert b"chunked" not in answer


async def test_the_methods_and_statuses_without_a_body_keep_the_pipeline_in_step(one: Worker) -> None:
    """Whatever length their heads state, the next answer begins right behind them (RFC 9112 §6.3)."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"HEAD " in head:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n")
            elif b" /304 " in head:
                writer.write(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n")
            elif b" /204 " in head:
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                writer.write(OK)

    one_round = b"".join(
        b"%b HTTP/1.1\r\nhost: a\r\n\r\n" % start for start in (b"HEAD /", b"GET /304", b"GET /", b"GET /204", b"GET /")
    )
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        answer = await one.talk(one_round * 10 + LAST)
        assert await one.count("upstream_cx_total") == 1
    assert statuses(answer) == [200, 304, 200, 204, 200] * 10 + [200]
    assert answer.count(b"\r\n\r\nok") == 21
