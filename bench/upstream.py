"""The servers behind the proxies: `python -m bench.upstream KIND PORT`, where KIND is http or bytes.

http answers every request with 1 KiB (for machines without nginx). bytes is for TCP: a connection's first byte says
what it wants, U to send us bytes that we throw away, D to be sent zeros until it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from typing import cast

import uvloop

BODY = b"x" * 1024
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CALL = "/Echo.grpc"
FRAMED = b"\0" + (95).to_bytes(4, "big") + b"\n\x5d" + b"x" * 93
"""The unary gRPC call at saturation: its path, whose ending makes nghttpd's content-type, and the 100 bytes that go
both ways: a message of 95 with its prefix."""

CHUNK = 256 * 1024
"""Bytes per read and write of the TCP scenario."""


class Http(asyncio.Protocol):
    """One connection. Requests have no body, as the generators send them."""

    __slots__ = ("_head", "_transport")

    def __init__(self) -> None:
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *heads, self._head = (self._head + data).split(b"\r\n\r\n")
        if heads:
            self._transport.write(_ANSWER * len(heads))


def serve_bytes(listening: socket.socket) -> None:
    """A thread for each connection; reads and writes of CHUNK bytes. Never returns."""
    while True:
        accepted, _ = listening.accept()
        threading.Thread(target=_bytes, args=(accepted,), daemon=True).start()


def _bytes(connection: socket.socket) -> None:
    buffer = bytearray(CHUNK)
    with connection, contextlib.suppress(OSError):  # the peer's close is the end, however it comes
        wanted = connection.recv(1)
        if wanted == b"U":
            while connection.recv_into(buffer):
                pass
        elif wanted == b"D":
            while True:
                connection.sendall(buffer)


async def _serve_http(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def main(argv: list[str]) -> int:
    """Serve until killed."""
    kind, port = argv[0], int(argv[1])
    if kind == "http":
        uvloop.run(_serve_http(port))
    else:
        with socket.create_server(("127.0.0.1", port), backlog=64) as listening:
            serve_bytes(listening)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
