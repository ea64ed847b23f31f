"""An HTTP/2 client that wants to harm a worker: what it sends, what comes back, and what it costs the worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.config.http2 import Http2Options
from tests.conformance.h2 import frames
from tests.conformance.h2.frames import GOAWAY, PREFACE, Frame, settings
from tests.support.worker import Worker, snapshot, upstream, worker

GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
OPTIONS = Http2Options(max_concurrent_streams=100)


@dataclass
class App:
    """Counts its requests. /hold is never answered, /bytes/N with N bytes, all else at once."""

    seen: int = 0
    written: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1]
            self.seen += 1
            if target == b"/hold":
                await reader.read(1 << 30)
                return
            large = target.startswith(b"/bytes/")
            size = int(target[7:]) if large else 2
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            while size:
                piece = min(size, 65_536)
                writer.write(b"x" * piece)
                size -= piece
                self.written += piece if large else 0
                await writer.drain()


@dataclass
class Cost:
    """What the worker has used up since a moment."""

    process: int
    resident: int = 0
    seconds: float = 0.0
    peak: int = 0

    def __post_init__(self) -> None:
        self.resident, self.seconds = self._now()

    def _now(self) -> tuple[int, float]:
        pages = int(Path(f"/proc/{self.process}/statm").read_text().split()[1])
        parts = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return pages * os.sysconf("SC_PAGESIZE"), (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def look(self) -> tuple[int, float]:
        """(bytes more at most so far, seconds of CPU)."""
        resident, seconds = self._now()
        self.peak = max(self.peak, resident - self.resident)
        return self.peak, seconds - self.seconds


@dataclass
class Attacker:
    """One connection. Reads all that comes, unless told not to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: list[Frame] = field(default_factory=list)
    closed: bool = False
    task: asyncio.Task[None] | None = None

    async def read(self) -> None:
        buffer = bytearray()
        with contextlib.suppress(ConnectionError):
            while more := await self.reader.read(1 << 16):
                buffer += more
                while (one := frames.parse(buffer)) is not None:
                    self.frames.append(one)
        self.closed = True

    async def send(self, *sent: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(b"".join(sent))
            await self.writer.drain()

    async def flood(self, chunks: Iterable[bytes]) -> None:
        """Send until all is sent, or the other end has had enough."""
        for chunk in chunks:
            if self.closed or self.writer.is_closing():
                return
            await self.send(chunk)
            await asyncio.sleep(0)

    @property
    def code(self) -> int | None:
        """Of the GOAWAY that came."""
        return next((one.code for one in self.frames if one.kind == GOAWAY), None)

    def got(self, kind: int) -> list[Frame]:
        return [one for one in self.frames if one.kind == kind]


@contextlib.asynccontextmanager
async def attacker(one: Worker, *pairs: tuple[int, int], read: bool = True) -> AsyncIterator[Attacker]:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=1 << 16)
    found = Attacker(reader, writer)
    if read:
        found.task = asyncio.create_task(found.read())
    await found.send(PREFACE, settings(*pairs))
    try:
        yield found
    finally:
        writer.transport.abort()
        if found.task is not None:
            await found.task


@contextlib.asynccontextmanager
async def target(options: Http2Options = OPTIONS, **http: Any) -> AsyncIterator[tuple[Worker, App, Cost]]:
    """A worker before an App; at the end it must come to rest, with nothing left of the attack."""
    app = App()
    async with worker() as one, upstream(app) as port:
        assert await one.apply(snapshot(one.port, port, http={"http2": options, **http})) is None
        assert b" 200 " in await one.talk(GET)
        cost = Cost(one.process.pid)
        yield one, app, cost
        async with asyncio.timeout(5):
            while await one.gauge("downstream_cx_active") or await one.gauge("upstream_rq_active"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def neighbour(one: Worker, longest: float = 3.0) -> AsyncIterator[None]:
    """Somebody on other connections meanwhile: each request is answered within `longest` seconds."""
    times: list[float] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            assert b" 200 " in await one.talk(GET)
            times.append(time.monotonic() - began)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        over.set()
        await task
    assert max(times) < longest
