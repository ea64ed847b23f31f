"""A client that ends its half while its answer is due has said all it will, or is gone: the worker finds out which."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tests.support.worker import Worker, snapshot, upstream, worker

POST = b"POST / HTTP/1.%d\r\nhost: app\r\ncontent-length: 5\r\n\r\nhello"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


class App:
    """Takes requests and answers when `release` is set; `left` is set when a client's connection ends before."""

    def __init__(self) -> None:
        self.asked, self.release, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"hello")
        self.asked.set()
        gone = asyncio.create_task(reader.read())
        released = asyncio.create_task(self.release.wait())
        await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
        released.cancel()
        if gone.done():
            self.left.set()
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await gone


async def test_an_abandoned_request_is_given_up(one: Worker) -> None:
    """A plain close, which is a FIN like any other: the upstream hears of it long before any timeout."""
    app = App()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, action={"timeout": 60.0}))
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(POST % 1)
        await app.asked.wait()
        writer.close()
        async with asyncio.timeout(5):
            await app.left.wait()
        await one.at_rest()
        assert await one.count("response_flags_total", flag="DC") == 1
        assert await one.gauge("downstream_cx_active") == 0


@pytest.mark.parametrize("minor", [0, 1])
async def test_a_half_closed_request_is_answered(one: Worker, minor: int) -> None:
    """However long it takes; RFC 9110 §15.2: an interim response may come before."""
    app = App()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, http={"accept_http_10": True}))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(POST % minor)
        writer.write_eof()
        await app.asked.wait()
        await asyncio.sleep(1.6)  # longer than the worker takes to find out
        assert not app.left.is_set()
        app.release.set()
        answer = await reader.read()
        writer.close()
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)] == ([100, 200] if minor else [200])
    assert answer.endswith(b"\r\n\r\nok")
