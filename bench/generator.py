"""HTTP/1.1 load from this process: at a fixed rate with intended send times, or as fast as answers come.

At a fixed rate request k is due at start + k/rate, whatever became of the ones before. It is sent on an idle
connection, or waits for one, and its latency counts from when it was due: a stall shows in every request that it holds
up (no coordinated omission). uvloop and plain Protocols: a request costs the generator about 15 µs.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import cast

import uvloop

from bench.errors import RequestsFailed
from bench.timer import Timer

GRACE = 5.0
"""Seconds that requests may take to finish after the end of a window."""


@dataclass(slots=True)
class Window:
    """What a window of load saw. `latencies` are in seconds, in order of completion, none at saturation."""

    requests: int
    seconds: float
    latencies: list[float]


class Generator:
    """Connections to one proxy. Use as a context manager; run() any number of times inside of it."""

    def __init__(self, port: int, connections: int = 32) -> None:
        """Connect to 127.0.0.1:`port` and have each connection answer once. Raises RequestsFailed."""
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._load = _Load(port)
        try:
            self._runner.run(self._load.connect(connections))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with self._runner:
            self._runner.run(self._load.close())

    def run(self, seconds: float, rate: float | None = None) -> Window:
        """Load for `seconds` at `rate` requests per second, or on every connection at once when it is None.

        Raises RequestsFailed when one request was not answered 200, or not in time.
        """
        gc.collect()
        gc.disable()
        try:
            return self._runner.run(self._load.window(seconds, rate))
        finally:
            gc.enable()


class _Load:
    """The state of a window: which connections are idle, which requests are due."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.request = f"GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: bench\r\n\r\n".encode()
        self.connections: list[_Connection] = []
        self.idle: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()  # intended send times of requests without a connection
        self.latencies: list[float] = []
        self.answered = 0
        self.closed_loop = False
        self.until = 0.0
        self.failure: str | None = None
        self._quiet: asyncio.Event | None = None

    async def connect(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            except OSError as error:
                raise RequestsFailed(f"cannot connect to port {self.port}: {error.strerror or error}") from None
            self.connections.append(connection)
        self.closed_loop, self.until = True, 0.0  # one request each
        await self._run_until_quiet(self.connections)

    async def close(self) -> None:
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)

    async def window(self, seconds: float, rate: float | None) -> Window:
        self.latencies, self.answered = [], 0
        began = perf_counter()
        self.until = began + seconds
        self.closed_loop = rate is None
        if rate is None:
            await self._run_until_quiet(self.connections)
            return Window(self.answered, perf_counter() - began, [])
        await self._at_rate(rate, max(1, round(seconds * rate)))
        return Window(self.answered, perf_counter() - began, self.latencies)

    async def _at_rate(self, rate: float, count: int) -> None:
        loop = asyncio.get_running_loop()
        timer = Timer(1 / rate)
        began = perf_counter()
        expired = sent = 0
        all_sent = loop.create_future()

        def due() -> None:
            nonlocal expired, sent
            expired += timer.expirations()
            while sent < min(expired, count):
                sent += 1
                at = began + sent / rate
                if self.idle:
                    self.idle.popleft().send(at)
                else:
                    self.waiting.append(at)
            if (sent == count or self.failure is not None) and not all_sent.done():
                all_sent.set_result(None)

        loop.add_reader(timer.fd, due)
        try:
            await all_sent
        finally:
            loop.remove_reader(timer.fd)
            timer.close()
        await self._run_until_quiet(())

    async def _run_until_quiet(self, start: list[_Connection] | tuple[()]) -> None:
        """Send on every connection of `start`, then wait until all of them are idle."""
        self._quiet = asyncio.Event()
        if start:
            self.idle.clear()
            now = perf_counter()
            for connection in start:
                connection.send(now)
        self._check()
        try:
            async with asyncio.timeout(max(0.0, self.until - perf_counter()) + GRACE):
                await self._quiet.wait()
        except TimeoutError:
            left = len(self.connections) - len(self.idle)
            self.failure = self.failure or f"{left} requests were not answered within {GRACE:g} s of the window's end"
        if self.failure is not None:
            raise RequestsFailed(f"port {self.port}: {self.failure}")

    def done(self, connection: _Connection, due: float, now: float) -> None:
        """A request was answered."""
        self.answered += 1
        if self.closed_loop:
            if now < self.until:
                connection.send(now)
                return
        else:
            self.latencies.append(now - due)
            if self.waiting:
                connection.send(self.waiting.popleft())
                return
        self.idle.append(connection)
        self._check()

    def fail(self, reason: str) -> None:
        """A request failed; the first reason is kept."""
        self.failure = self.failure or reason
        self._check()

    def _check(self) -> None:
        quiet = len(self.idle) == len(self.connections) and not self.waiting
        if self._quiet is not None and (quiet or self.failure is not None):
            self._quiet.set()


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("_closing", "_due", "_left", "_load", "_transport")

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self._left = b""  # an answer's head that came in part
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses

    def send(self, due: float) -> None:
        """Send the request that was meant to be sent at `due`."""
        assert self._transport is not None
        self._due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        if self._left:
            data = self._left + data
        length = answer_length(data)
        if length is None or length > len(data):
            self._left = data
            return
        self._left = b""
        if not data.startswith(b"HTTP/1.1 200 ") or length < 0 or length < len(data):
            head, _, body = data.partition(b"\r\n\r\n")
            said = b"%b: %b" % (head.splitlines()[0], body[:200]) if head else b"nothing"
            self._load.fail(f"unexpected answer: {said.decode('latin-1').strip()}")
            return
        self._load.done(self, self._due, perf_counter())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._load.fail(f"connection closed{f': {exc}' if exc else ''}")

    def close(self) -> None:
        """Close it; not a failure."""
        self._closing = True
        assert self._transport is not None
        self._transport.abort()


def answer_length(data: bytes) -> int | None:
    """The length in bytes of the answer that `data` begins with; None while its head is not whole, -1 when it does not
    say (only content-length is understood).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return -1
    value = head[at + 17 :].partition(b"\r\n")[0].strip()
    return end + 4 + int(value) if value.isdigit() else -1
