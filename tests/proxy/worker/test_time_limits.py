"""Time limits and counts of listeners, routes and clusters, through a real worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.worker import Worker, snapshot, upstream, worker

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


async def prompt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request as soon as it is whole."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: 4" in head:
            await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads and says nothing."""
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a byte every 50 ms for ever."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


class Client:
    """A connection to the worker, and what it says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        """A head and, if it announces one, its body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + (await self.reader.readexactly(int(length)) if length else b"")

    async def sees_six(self) -> None:
        """Read six bytes of what `dripping` sends, which takes it 0.3 s."""
        async with asyncio.timeout(5):
            assert b" 200 OK" in await self.reader.readuntil(b"\r\n\r\n")
            seen = 0
            while seen < 6:
                seen += (await self.reader.readexactly(1)).count(b"x")

    async def rest(self) -> bytes:
        """All until the worker closes."""
        return await asyncio.wait_for(self.reader.read(), 5)


@pytest.fixture
async def client(one: Worker) -> AsyncIterator[Any]:
    """Opens connections, and closes them at the end."""
    opened: list[Client] = []

    async def connect() -> Client:
        opened.append(Client(*await asyncio.open_connection("127.0.0.1", one.port)))
        return opened[-1]

    yield connect
    for each in opened:
        each.writer.close()
        await asyncio.gather(each.writer.wait_closed(), return_exceptions=True)


async def flags(one: Worker, flag: str) -> int:
    return await one.count("response_flags_total", flag=flag)


# ---- requests that come slowly


async def test_a_head_must_come_in_time(one: Worker, client: Any) -> None:
    for fields in (
        {"request_headers_timeout": 0.1},
        {"request_headers_timeout": 0.0, "request_timeout": 0.1},
        {"request_headers_timeout": 0.0, "stream_idle_timeout": 0.1},
        {"request_headers_timeout": 5.0, "request_timeout": 0.1},
    ):
        await one.apply(snapshot(one.port, http=fields))
        slow = await client()
        slow.writer.write(b"GET / HTTP/1.1\r\nho")
        assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_must_come_in_time(one: Worker, client: Any) -> None:
    async with upstream(prompt) as port:
        await one.apply(snapshot(one.port, port, http={"request_timeout": 0.2}))
        slow = await client()
        slow.writer.write(POST)
        for byte in (b"a", b"b"):  # it moves, and so is not idle
            await asyncio.sleep(0.08)
            slow.writer.write(byte)
        answer = await slow.rest()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"request_timeout" in answer
        assert await flags(one, "DT") == 1
        fast = await client()
        fast.writer.write(POST + b"abcd" + GET)
        assert b" 200 OK" in await fast.answer()
        assert b" 200 OK" in await fast.answer()


async def test_an_answer_may_take_longer_than_the_request_may(one: Worker, client: Any) -> None:
    async with upstream(dripping) as port:
        await one.apply(snapshot(one.port, port, http={"request_timeout": 0.1}))
        one_client = await client()
        one_client.writer.write(POST + b"abcd")
        await one_client.sees_six()


async def test_the_time_of_the_route_begins_with_the_end_of_the_request(one: Worker, client: Any) -> None:
    async with upstream(silent) as port:
        await one.apply(snapshot(one.port, port, action={"timeout": 0.3}))
        slow = await client()
        started = time.monotonic()
        slow.writer.write(POST + b"ab")
        await asyncio.sleep(0.4)
        slow.writer.write(b"cd")
        sent = time.monotonic()
        assert (await slow.answer()).startswith(b"HTTP/1.1 504 ")
        assert time.monotonic() - sent > 0.25
        assert time.monotonic() - started > 0.65
        assert await flags(one, "UT") == 1


# ---- answers that take long


@pytest.mark.parametrize(
    ("http", "action"),
    [
        ({"max_stream_duration": 0.2}, {"timeout": 0}),
        ({}, {"timeout": 0, "max_stream_duration": 0.2}),
        ({"max_stream_duration": 30.0}, {"timeout": 0, "max_stream_duration": 0.2}),
    ],
)
async def test_no_stream_lasts_longer_than_it_may(
    one: Worker, client: Any, http: dict[str, Any], action: dict[str, Any]
) -> None:
    async with upstream(silent) as port:
        await one.apply(snapshot(one.port, port, http=http, action=action))
        waiting = await client()
        waiting.writer.write(GET)
        answer = await waiting.answer()
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"max_stream_duration" in answer
        sending = await client()
        sending.writer.write(POST)
        assert (await sending.answer()).startswith(b"HTTP/1.1 408 ")
        assert await flags(one, "DT") == 2
    async with upstream(dripping) as port:
        await one.apply(snapshot(one.port, port, http=http, action=action))
        endless = await client()
        endless.writer.write(GET)
        with pytest.raises(asyncio.IncompleteReadError):  # cut, for it had begun
            await asyncio.wait_for(endless.reader.readuntil(b"0\r\n\r\n"), 5)


async def test_a_route_can_have_no_limit_where_the_listener_has_one(one: Worker, client: Any) -> None:
    async with upstream(dripping) as port:
        action = {"timeout": 0, "max_stream_duration": 0.0, "idle_timeout": 0.0}
        http = {"max_stream_duration": 0.1, "stream_idle_timeout": 0.1}
        await one.apply(snapshot(one.port, port, http=http, action=action))
        endless = await client()
        endless.writer.write(GET)
        await endless.sees_six()


async def test_the_idle_timeout_of_a_route(one: Worker, client: Any) -> None:
    async with upstream(silent) as port:
        await one.apply(snapshot(one.port, port, action={"timeout": 0, "idle_timeout": 0.1}))
        waiting = await client()
        waiting.writer.write(GET)
        assert (await waiting.answer()).startswith(
            b"HTTP/1.1 504 "
        )  # the request was whole: it is the upstream's fault
        sending = await client()
        sending.writer.write(POST + b"a")
        assert (await sending.answer()).startswith(b"HTTP/1.1 408 ")
        assert await flags(one, "SI") == 2


# ---- connections


async def test_a_connection_serves_so_many_requests(one: Worker, client: Any) -> None:
    async with upstream(prompt) as port:
        await one.apply(snapshot(one.port, port, http={"max_requests_per_connection": 2}))
        busy = await client()
        busy.writer.write(GET * 3)
        answers = await busy.rest()
        assert answers.count(b"HTTP/1.1 200 OK") == 2
        first, _, second = answers.partition(b"ok")
        assert b"connection: close" not in first
        assert b"connection: close" in second


async def test_a_connection_lives_so_long(one: Worker, client: Any) -> None:
    async with upstream(prompt) as port:
        await one.apply(snapshot(one.port, port, http={"max_connection_duration": 0.2}))
        idle, used = await client(), await client()
        used.writer.write(GET)
        assert b"connection: close" not in await used.answer()
        started = time.monotonic()
        assert await idle.rest() == b""
        assert await used.rest() == b""
        assert time.monotonic() - started < 2


async def test_an_answer_that_is_due_is_given_before_an_old_connection_closes(one: Worker, client: Any) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, http={"max_connection_duration": 0.2}))
        old = await client()
        old.writer.write(GET)
        await asked.wait()
        await asyncio.sleep(0.3)
        go_on.set()
        answer = await old.rest()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer


@pytest.mark.parametrize(("delay", "least", "most"), [(0.4, 0.3, 3.0), (0.0, 0.0, 0.3)])
async def test_delayed_close(one: Worker, client: Any, delay: float, least: float, most: float) -> None:
    """A client that goes on sending after it was refused has so long to read why."""
    await one.apply(snapshot(one.port, http={"delayed_close_timeout": delay}))
    rude = await client()
    rude.writer.write(b"rubbish\r\n\r\n")
    assert (await rude.answer()).startswith(b"HTTP/1.1 400 ")

    async def send_on() -> None:
        while True:
            rude.writer.write(b"x")
            await rude.writer.drain()
            await asyncio.sleep(0.01)

    started = time.monotonic()
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_on(), 5)
    assert least <= time.monotonic() - started < most


# ---- clusters


async def test_limits_on_the_head_of_a_response(one: Worker, client: Any) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + b"x: %b\r\n" % (b"y" * 100) * 50 + b"\r\n")

    async with upstream(app) as port:
        for limits, status in (
            ({}, b"200"),
            ({"max_headers_count": 50}, b"502"),
            ({"max_headers_count": 51}, b"200"),
            ({"max_response_headers_bytes": 4096}, b"502"),
        ):
            await one.apply(snapshot(one.port))  # connections keep the limits that they began with
            await one.apply(snapshot(one.port, port, cluster=limits))
            asking = await client()
            asking.writer.write(GET)
            assert (await asking.answer()).split(b" ")[1] == status, limits


async def test_a_connection_to_an_endpoint_lives_so_long(one: Worker, client: Any) -> None:
    ended = asyncio.Queue[float]()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started = time.monotonic()
        try:
            await prompt(reader, writer)
        finally:
            ended.put_nowait(time.monotonic() - started)

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, cluster={"max_connection_duration": 0.3}))
        asking = await client()
        asking.writer.write(GET)
        await asking.answer()
        assert 0.2 < await asyncio.wait_for(ended.get(), 5) < 2  # while it was idle
        asking.writer.write(GET)
        assert b" 200 OK" in await asking.answer()
