"""A strict reader of HTTP/1.1 as a good proxy writes it: the corpus's own judge, sharing no code with proxy.http.

It accepts the one unambiguous form of a message and nothing else, on both sides of the proxy.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

LIMIT = 1 << 22
"""For StreamReaders: the longest line or head that a case can bring."""

Fields = list[tuple[bytes, bytes]]

_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.1")
_STATUS = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9a-z]+): ?((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)"
)
_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")


class WireError(Exception):
    """What came is no message in the one form that is expected."""


class Truncated(Exception):
    """The connection ended inside a message. `message` has what came of it, when its head was complete."""

    def __init__(self, message: Message | None) -> None:
        super().__init__("cut off")
        self.message = message


@dataclass(slots=True)
class Message:
    """A request (`method`, `target`) or a response (`version`, `status`, `reason`); header names are lower case."""

    method: bytes = b""
    target: bytes = b""
    version: bytes = b"HTTP/1.1"
    status: int = 0
    reason: bytes = b""
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    framing: str = "none"
    """How the body ended: none, length, chunked or close."""
    connection: int = 0
    """The upstream connection that it came on, counted from 1 (set by the drive)."""

    def get(self, name: bytes) -> bytes | None:
        """The values of a field joined with commas; None when absent."""
        values = [value for key, value in self.fields if key == name]
        return b",".join(values) if values else None


async def read_request(reader: asyncio.StreamReader) -> Message | None:
    """The next request; None at a clean end. Raises Truncated, WireError."""
    head = await _head(reader)
    if head is None:
        return None
    message = Message()
    found = _REQUEST.fullmatch(head[0])
    if found is None:
        raise WireError(f"no request line: {head[0]!r}")
    message.method, message.target = found[1], found[2]
    message.fields = _fields(head[1:])
    if sum(name == b"host" for name, _ in message.fields) != 1:
        raise WireError("not exactly one host")
    length = _framing(message)
    return await _body(reader, message, 0 if length is None else length)


async def read_response(reader: asyncio.StreamReader, method: bytes = b"GET") -> Message | None:
    """The next response, of a request with `method`; None at a clean end. Raises Truncated, WireError."""
    head = await _head(reader)
    if head is None:
        return None
    message = Message()
    found = _STATUS.fullmatch(head[0])
    if found is None:
        raise WireError(f"no status line: {head[0]!r}")
    message.version, message.status, message.reason = found[1], int(found[2]), found[3]
    message.fields = _fields(head[1:])
    length = _framing(message)
    if method == b"HEAD" or message.status < 200 or message.status in (204, 304):
        if (message.status < 200 or message.status == 204) and length is not None:
            raise WireError(f"framing fields in a {message.status}")
        return message
    return await _body(reader, message, length)


async def _head(reader: asyncio.StreamReader) -> list[bytes] | None:
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Truncated(None) from None
        return None
    except ConnectionError:
        raise Truncated(None) from None
    return data[:-4].split(b"\r\n")


def _fields(lines: list[bytes]) -> Fields:
    fields = []
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise WireError(f"no field line: {line!r}")
        fields.append((found[1], found[2]))
    return fields


def _framing(message: Message) -> int | None:
    """The content-length, -1 for chunked, None when no field tells."""
    lengths = [value for name, value in message.fields if name == b"content-length"]
    codings = [value for name, value in message.fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise WireError(f"several framing fields: {message.fields}")
    if codings:
        if codings[0] != b"chunked":
            raise WireError(f"transfer-encoding {codings[0]!r}")
        return -1
    if lengths:
        if not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            raise WireError(f"content-length {lengths[0]!r}")
        return int(lengths[0])
    return None


async def _body(reader: asyncio.StreamReader, message: Message, length: int | None) -> Message:
    try:
        if length is None:
            message.framing = "close"
            while data := await reader.read(65536):
                message.body += data
        elif length >= 0:
            message.framing = "length" if length or message.get(b"content-length") else "none"
            message.body = await reader.readexactly(length)
        else:
            message.framing = "chunked"
            await _chunks(reader, message)
    except asyncio.IncompleteReadError as error:
        message.body += error.partial if message.framing == "length" else b""
        raise Truncated(message) from None
    except ConnectionError:
        raise Truncated(message) from None
    return message


async def _chunks(reader: asyncio.StreamReader, message: Message) -> None:
    while True:
        line = (await reader.readuntil(b"\r\n"))[:-2]
        if _SIZE.fullmatch(line) is None:
            raise WireError(f"chunk size {line!r}")
        size = int(line, 16)
        if not size:
            break
        message.body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise WireError("no line end behind a chunk")
    lines = []
    while line := (await reader.readuntil(b"\r\n"))[:-2]:
        lines.append(line)
    message.trailers = _fields(lines)
