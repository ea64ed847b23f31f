"""Clients that leave at every moment of a request, in every way, and an app that gives them the moments."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
POST = b"POST %b HTTP/1.1\r\nhost: app\r\n%b\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads heads and bodies; /late answers after a moment, /never not at all, /large with 400 KB, /endless for as
    long as anybody reads, /parts in pieces, /early before the body, everything else at once."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        if path == b"/early":
            writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
            await writer.drain()
        await _skip_body(head.lower(), reader)
        if path == b"/early":
            continue
        if path == b"/never":
            await reader.read()
            return
        if path == b"/endless":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        if path == b"/late":
            await asyncio.sleep(0.02)
        if path == b"/large":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n" + b"x" * 400_000)
        elif path == b"/parts":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(4):
                writer.write(b"5\r\nhello\r\n")
                await writer.drain()
                await asyncio.sleep(0.005)
            writer.write(b"0\r\nx-sum: 1\r\n\r\n")
        else:
            writer.write(OK)
        await writer.drain()


async def _skip_body(head: bytes, reader: asyncio.StreamReader) -> None:
    if b"transfer-encoding: chunked" in head:
        while (await reader.readuntil(b"\r\n")) != b"0\r\n":
            pass
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass  # trailers
    elif b"content-length: " in head:
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


class Client:
    """One connection and one request that may not come to its end. `rng` chooses how it leaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random) -> None:
        self.reader = reader
        self.writer = writer
        self.rng = rng

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.choice((0, 0, 0.001, 0.01)))

    async def whole_answer(self) -> None:
        answer = await self.reader.read()
        # 504: it waited too long for one of the connections that others hold. Before it may stand the 100 by which the
        # worker asks whether a client that has said its end is still there.
        assert answer.rpartition(b"HTTP/1.1 ")[2][:3] in (b"200", b"504"), answer

    async def answered(self, path: bytes, framing: bytes = b"content-length: 0") -> None:
        self.writer.write(POST % (path, framing + b"\r\nconnection: close"))
        await self.reader.read()

    async def before_head(self) -> None:
        await self.pause()

    async def mid_head(self) -> None:
        self.writer.write(b"GET / HTTP/1.1\r\nhost: ap")
        await self.pause()

    async def mid_body(self) -> None:
        self.writer.write(POST % (self.rng.choice((b"/", b"/early")), b"content-length: 100000") + b"x" * 30_000)
        await self.pause()

    async def mid_chunk(self) -> None:
        self.writer.write(POST % (b"/", b"transfer-encoding: chunked") + b"5\r\nhello\r\nff\r\nmo")
        await self.pause()

    async def after_request(self) -> None:
        path = self.rng.choice((b"/late", b"/never"))
        self.writer.write(POST % (path, b"content-length: 5") + b"hello")
        await self.pause()

    async def mid_answer(self) -> None:
        self.writer.write(POST % (self.rng.choice((b"/large", b"/parts")), b"content-length: 0"))
        await self.reader.read(self.rng.choice((1, 500, 100_000)))

    async def half_close(self) -> None:
        self.writer.write(POST % (self.rng.choice((b"/", b"/late", b"/parts")), b"content-length: 0"))
        self.writer.write_eof()
        await self.whole_answer()

    async def half_close_mid_body(self) -> None:
        self.writer.write(POST % (b"/", b"content-length: 10") + b"hello")
        self.writer.write_eof()
        await self.reader.read()

    async def pipelined(self) -> None:
        self.writer.write(POST % (b"/", b"content-length: 0") * 4 + POST % (b"/late", b"content-length: 0"))
        await self.reader.read(self.rng.choice((1, 1000)))

    async def whole(self) -> None:
        await self.answered(self.rng.choice((b"/", b"/", b"/late", b"/parts", b"/large")))

    async def chunked(self) -> None:
        self.writer.write(POST % (b"/", b"transfer-encoding: chunked\r\nconnection: close") + b"5\r\nhello\r\n")
        await self.pause()
        self.writer.write(b"0\r\nx-t: 1\r\n\r\n")
        await self.whole_answer()

    async def rubbish(self) -> None:
        self.writer.write(b"GET / HTTP/1.1\r\nhost: app\r\n\r\nrubbish\r\n\r\n")
        await self.reader.read(self.rng.choice((1, 1000)))

    def leave(self) -> None:
        """Close, or reset."""
        if self.rng.random() < 0.5 and not self.writer.is_closing():
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()


KINDS: tuple[Callable[[Client], Awaitable[None]], ...] = (
    Client.before_head,
    Client.mid_head,
    Client.mid_body,
    Client.mid_chunk,
    Client.after_request,
    Client.mid_answer,
    Client.half_close,
    Client.half_close_mid_body,
    Client.pipelined,
    Client.whole,
    Client.chunked,
    Client.rubbish,
)


async def storm(port: int, requests: int, concurrency: int, rng: random.Random) -> Counter[str]:
    """So many clients to 127.0.0.1:port, `concurrency` at a time; how many of each kind."""
    left = iter(range(requests))
    done: Counter[str] = Counter()

    async def one_after_another() -> None:
        for _ in left:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            client, kind = Client(reader, writer, rng), rng.choice(KINDS)
            try:
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(kind(client), 10)
                done[kind.__name__] += 1
            finally:
                client.leave()

    await asyncio.gather(*(one_after_another() for _ in range(concurrency)))
    return done
