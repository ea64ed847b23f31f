"""HTTP/1.1 by hand, with everything that HTTP/2 bridges to: trailers, interim responses, chunks, upgrades. A blocking
client and an app, which speak of the same Messages and Replies as grpc_wire."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import IO, Protocol

from tests.support.grpc_wire import App, Handler, Headers, Message, Reply, own
from tests.support.tcp import app_in_thread

SWITCHING = (
    "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n"
)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BODILESS = (204, 304)


class Lines(Protocol):
    """A reader of either kind, blocking."""

    def readline(self) -> bytes: ...
    def read(self, size: int) -> bytes: ...


class Client:
    """One connection, blocking."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 15)
        self.file: IO[bytes] = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def ask(
        self,
        method: str,
        host: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes] | None = None,
        trailers: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """A request and its answer. Bytes as body have a content-length; a sequence is sent as chunks."""
        self.head(method, host, path, headers, body)
        if isinstance(body, bytes):
            self.sock.sendall(body)
        elif body is not None:
            self.chunks(body, trailers)
        return self.answer(method)

    def head(
        self,
        method: str,
        host: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | Sequence[bytes] | None,
    ) -> None:
        """A request's head."""
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
        if isinstance(body, bytes):
            lines.append(f"content-length: {len(body)}")
        elif body is not None:
            lines.append("transfer-encoding: chunked")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())

    def chunks(self, parts: Sequence[bytes], trailers: Sequence[tuple[str, str]]) -> None:
        """A chunked body to its end."""
        for part in parts:
            self.sock.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        self.sock.sendall(b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n")

    def interim(self) -> int:
        """The status of the next head, which must have no fields that matter."""
        status, _ = read_head(self.file)
        return int(status.split()[1])

    def answer(self, method: str) -> Message:
        """The next answer, with the interim ones before it."""
        interim: list[int] = []
        while True:
            line, headers = read_head(self.file)
            assert line.startswith("HTTP/1.1 "), line
            status = int(line.split()[1])
            if status >= 200 or status == 101:
                break
            interim.append(status)
        found = Message({":status": str(status)}, headers, interim=interim)
        if method != "HEAD" and status not in BODILESS and status != 101:
            read_body(self.file, found, to_end=True)
        return found


def read_head(file: Lines) -> tuple[str, Headers]:
    """First line and fields, their names in lower case."""
    first = file.readline().decode("latin-1")
    assert first, "the connection ended before a head"
    return first.rstrip("\r\n"), read_fields(file)


def read_fields(file: Lines) -> Headers:
    """Fields up to an empty line."""
    found: Headers = []
    while line := file.readline().decode("latin-1").rstrip("\r\n"):
        name, _, value = line.partition(":")
        found.append((name.lower(), value.strip()))
    return found


def read_body(file: Lines, into: Message, to_end: bool) -> None:
    """A body as its head frames it, and the trailers; without framing: nothing, or all up to the end."""
    length = into.get("content-length")
    if into.get("transfer-encoding") == "chunked":
        assert length is None, into
        while size := int(file.readline().split(b";")[0], 16):
            into.body += file.read(size)
            assert file.readline() == b"\r\n"
        into.trailers = read_fields(file) or None
    elif length is not None:
        into.body += file.read(int(length))
        assert len(into.body) == int(length), "cut short"
    elif to_end:
        into.body += file.read(-1)


@contextlib.contextmanager
def h1_app(handler: Handler) -> Iterator[App]:
    """An app that answers every request through `handler`, and every WebSocket upgrade as an echo that says "bye"."""
    seen: list[Message] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own(writer.transport)
        while (request := await take(reader)) is not None:
            seen.append(request)
            if request.get("upgrade") == "websocket":
                key = request.get("sec-websocket-key")
                if key is None:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                    return
                writer.write(SWITCHING.format(accept(key)).encode())
                while data := await reader.read(65536):
                    writer.write(data)
                writer.write(b"bye")
                return
            reply = handler(request)
            answer(request, reply, writer)
            await writer.drain()
            if reply.cut:
                return

    with app_in_thread(serve) as port:
        yield App(port, seen)


def accept(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()  # noqa: S324  # the RFC's choice


async def take(reader: asyncio.StreamReader) -> Message | None:
    """The next request, whole."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].split("\r\n")
    method, path, version = first.split(" ")
    assert version == "HTTP/1.1"
    pairs = [line.partition(":") for line in lines]
    found = Message({":method": method, ":path": path}, [(name.lower(), value.strip()) for name, _, value in pairs])
    found.pseudo[":authority"] = found.get("host") or ""
    if found.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            found.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            found.trailers = [*(found.trailers or []), (name.lower(), value.strip())]
    elif length := found.get("content-length"):
        found.body += await reader.readexactly(int(length))
    return found


def answer(request: Message, reply: Reply, writer: asyncio.StreamWriter) -> None:
    """Write a Reply: with content-length, or chunked if it has trailers or no length."""

    def head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode()

    for status, fields in reply.interim:
        writer.write(head(status, fields))
    headers = list(reply.headers)
    chunked = bool(reply.trailers) or not reply.length
    body = reply.body or b""
    if reply.body is not None:
        headers.append(("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body))))
    writer.write(head(reply.status, headers))
    if request.pseudo[":method"] == "HEAD" or reply.body is None:
        return
    if not chunked:
        writer.write(body)
        return
    for start in range(0, len(body), 10_000):
        part = body[start : start + 10_000]
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
    if reply.cut:
        return
    fields_ = "".join(f"{name}: {value}\r\n" for name, value in reply.trailers).encode()
    writer.write(b"0\r\n" + fields_ + b"\r\n")
