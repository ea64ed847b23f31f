"""Large bodies through a pair over mutual TLS, to readers that stall: what waits must wait at its sender.

STREAM_MIB=2048 in the environment streams 2 GiB each way; the default is enough to exceed every bound many times.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from typing import IO

import pytest

from tests.support import sidecars
from tests.support.harness import Harness

MIB = 1024 * 1024
SIZE = int(os.environ.get("STREAM_MIB", "256")) * MIB
BOUND = 16 * MIB
"""How far a sidecar may grow above its idle memory, agent and worker together."""
BLOCK = bytes(range(256)) * 1024
STANDSTILL = 0.3
"""Seconds without progress after which a sender counts as held back."""
CHUNKED = b"transfer-encoding: chunked\r\n"
LENGTH = b"content-length: %d\r\n" % SIZE


class Leg:
    """One direction: a sender and a reader that stalls a quarter into the body, until the sender stands still."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.held = 0
        self.sum_sent = 0
        self.sum_received = 0

    def send(self, sock: socket.socket, chunked: bool) -> None:
        """Write the body of SIZE bytes."""
        while self.sent < SIZE:
            if chunked:
                sock.sendall(b"%x\r\n" % len(BLOCK))
            sock.sendall(BLOCK)
            self.sum_sent = zlib.crc32(BLOCK, self.sum_sent)
            if chunked:
                sock.sendall(b"\r\n")
            self.sent += len(BLOCK)
        if chunked:
            sock.sendall(b"0\r\n\r\n")

    def receive(self, sock: socket.socket, begun: bytes, chunked: bool) -> None:
        """Read it all; `begun` came together with the head."""
        body = dechunk(sock, begun) if chunked else plain(sock, begun)
        for data in body:
            self.received += len(data)
            self.sum_received = zlib.crc32(data, self.sum_received)
            if not self.held and self.received > SIZE // 4:
                self._stall()

    def _stall(self) -> None:
        before = -1
        while before != self.sent:
            before = self.sent
            time.sleep(STANDSTILL)
        self.held = self.sent


def plain(sock: socket.socket, begun: bytes) -> Iterator[bytes]:
    left = SIZE - len(begun)
    yield begun
    while left:
        data = sock.recv(min(left, len(BLOCK)))
        assert data, f"ended {left} bytes too early"
        left -= len(data)
        yield data


def dechunk(sock: socket.socket, begun: bytes) -> Iterator[bytes]:
    with sock.makefile("rb") as file:
        rest = Rest(begun, file)
        while size := int(rest.line(), 16):
            yield rest.exactly(size)
            rest.line()
        assert rest.line() == b"\r\n"


class Rest:
    """What was read too early, then the file."""

    def __init__(self, begun: bytes, file: IO[bytes]) -> None:
        self._begun = begun
        self._file = file

    def line(self) -> bytes:
        found, newline, rest = self._begun.partition(b"\n")
        if newline:
            self._begun = rest
            return found + newline
        self._begun = b""
        more = self._file.readline()
        return found + more

    def exactly(self, size: int) -> bytes:
        found, self._begun = self._begun[:size], self._begun[size:]
        more = self._file.read(size - len(found))
        assert len(found) + len(more) == size
        return found + more


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """(head, what came of the body with it)."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        assert more, data
        data += more
    head, _, begun = data.partition(b"\r\n\r\n")
    return head, begun


class App:
    """Takes a request's body, then answers with one as large; one connection."""

    def __init__(self, up: Leg, down: Leg, chunked: bool) -> None:
        self._up, self._down, self._chunked = up, down, chunked
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run, name="app", daemon=True)

    def __enter__(self) -> App:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listening.close()

    def _run(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return
        with sock:
            try:
                _, begun = read_head(sock)
                self._up.receive(sock, begun, self._chunked)
                sock.sendall(b"HTTP/1.1 200 OK\r\n" + (CHUNKED if self._chunked else LENGTH) + b"\r\n")
                self._down.send(sock, self._chunked)
            except Exception as error:
                self.errors.append(error)


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_memory_stays_where_it_is(work: Harness, chunked: bool) -> None:
    up, down = Leg(), Leg()
    with App(up, down, chunked) as app:
        pair = sidecars.pair(work, app.port)
        idle = {name: sidecar.memory() for name, sidecar in pair.sidecars.items()}
        with sidecars.Peak(pair.sidecars) as peak, socket.create_connection(("127.0.0.1", pair.front.listen)) as sock:
            sock.settimeout(60)
            framing = CHUNKED if chunked else LENGTH
            sock.sendall(b"POST / HTTP/1.1\r\nhost: app\r\n" + framing + b"\r\n")
            up.send(sock, chunked)
            head, begun = read_head(sock)
            assert head.startswith(b"HTTP/1.1 200")
            down.receive(sock, begun, chunked)
        assert not app.errors
        for leg in (up, down):
            assert leg.received == SIZE
            assert leg.sum_received == leg.sum_sent
            assert SIZE // 4 < leg.held < SIZE
        growth = {name: peak.highest[name] - idle[name] for name in idle}
        print({name: f"idle {idle[name] / MIB:.1f} MiB, grew {growth[name] / MIB:.1f} MiB" for name in idle})
        assert max(growth.values()) <= BOUND, growth
