"""Clients that take their time, many of them in one event loop, and the descriptors that takes."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any

HEAD = b"POST %b HTTP/1.1\r\nhost: app\r\ncontent-length: %d\r\n\r\n"


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """Allow as many as the system lets us; child processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Slow(asyncio.Protocol):
    """One connection. It sends `first`, then one byte of `drip` with each `step()`, and keeps what it is told;
    `reads` off, it takes nothing until `read()`."""

    def __init__(self, first: bytes = b"", drip: bytes = b"", reads: bool = True) -> None:
        self._first = first
        self._drip = iter([drip[at : at + 1] for at in range(len(drip))])
        self._reads = reads
        self.transport: Any = None
        self.got = bytearray()
        self.error: Exception | None = None
        self.closed = False

    async def connect(self, port: int) -> None:
        """To 127.0.0.1:port."""
        sock = socket.socket()
        sock.setblocking(False)
        if not self._reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.create_connection(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if not self._reads:
            self.transport.pause_reading()
        if self._first:
            self.transport.write(self._first)

    def step(self) -> None:
        """One byte more, if there is one and anybody to take it."""
        open_ = self.transport is not None and not self.transport.is_closing()
        if open_ and (byte := next(self._drip, b"")):
            self.transport.write(byte)

    def read(self) -> None:
        """Take what waits, and all that comes."""
        if not self.closed and not self._reads:
            self._reads = True
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.error = exc


def idle() -> Slow:
    """Connects and says nothing."""
    return Slow()


def silent_head() -> Slow:
    """Stops in the middle of a head."""
    return Slow(b"GET / HTTP/1.1\r\nhost: a")


def dripping_head() -> Slow:
    """A byte now and then, for ever."""
    return Slow(b"GET / HTTP/1.1\r\nx: ", b"y" * 10_000)


def silent_body() -> Slow:
    """Stops in the middle of a body."""
    return Slow(HEAD % (b"/", 1000) + b"x" * 10)


def dripping_body() -> Slow:
    """A byte now and then, for as long as it may."""
    return Slow(HEAD % (b"/", 10_000), b"x" * 10_000)


def reader() -> Slow:
    """Asks for much and takes nothing."""
    return Slow(HEAD % (b"/endless", 0), reads=False)


async def connect_all(port: int, clients: list[Slow]) -> None:
    """Connect them, some at a time."""
    for start in range(0, len(clients), 100):
        await asyncio.gather(*(client.connect(port) for client in clients[start : start + 100]))


async def drip(clients: list[Slow], seconds: float) -> None:
    """Step each of them once in so many seconds, evenly spread over the time, until cancelled."""
    slices = max(1, round(seconds / 0.01))
    while True:
        for first in range(slices):
            await asyncio.sleep(seconds / slices)
            for client in clients[first::slices]:
                client.step()
