"""Resets that come in the same moment as data, which an event loop tells of only once."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.tcp import reset, tcp_snapshot
from tests.support.worker import snapshot, upstream, worker

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def end(reader: asyncio.StreamReader) -> int:
    """The bytes until the connection ends, one way or the other; TimeoutError if it does not."""
    count = 0
    async with asyncio.timeout(3):
        try:
            while data := await reader.read(1 << 20):
                count += len(data)
        except ConnectionError:
            pass
    return count


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_body_cut_by_a_reset_is_cut_at_once(size: int) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * size)
        await writer.drain()
        reset(writer)

    async with worker() as one, upstream(app) as port:
        await one.apply(snapshot(one.port, port))

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(GET)
            await asyncio.sleep(0.2)  # the answer and its end are there before we look
            assert await end(reader) < 9_000_000
            writer.close()

        await asyncio.gather(*(client() for _ in range(8)))
        await one.at_rest()
        assert (
            await one.count("response_flags_total", flag="UC") + await one.count("response_flags_total", flag="UF") == 8
        )


@pytest.mark.parametrize("data", [b"G", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab"])
async def test_a_client_that_sends_a_part_and_resets_is_let_go(data: bytes) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with worker() as one, upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(data)
            reset(writer)
        async with asyncio.timeout(3):
            while await one.gauge("downstream_cx_active") or not await one.count("downstream_cx_total"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_post_is_not_lost_on_a_connection_that_was_reset_with_its_last_answer() -> None:
    got = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            got += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        if head.startswith(b"GET"):
            reset(writer)

    async with worker() as one, upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(GET)
            # The reset may overtake its own answer: then there is a 503 and no connection left to go wrong.
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(post)
            rest = await asyncio.wait_for(reader.read(), 3)
            assert b"HTTP/1.1 200" in rest
            writer.close()
        assert got == 10


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_relayed_connection_that_is_reset_ends_at_once(size: int) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"x" * size)
        await writer.drain()
        reset(writer)

    async with worker() as one, upstream(app) as port:
        await one.apply(tcp_snapshot(one.port, port))

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(b"?")
            await asyncio.sleep(0.2)
            await end(reader)
            writer.close()

        await asyncio.gather(*(client() for _ in range(8)))
        async with asyncio.timeout(3):
            while await one.gauge("downstream_cx_active"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
