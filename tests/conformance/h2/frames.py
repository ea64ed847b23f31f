"""HTTP/2 frames and header blocks as bytes, also such as no library would make (RFC 9113 §4, §6; RFC 7541 §6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
         "CONTINUATION")  # fmt: skip

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

# Settings, §6.5.2 and RFC 8441 §3.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
ENABLE_CONNECT_PROTOCOL = 8

# Error codes, §7.
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)  # fmt: skip
CODES = ("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
         "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
         "ENHANCE_YOUR_CALM")  # fmt: skip

MAX_WINDOW = 2**31 - 1
LARGEST = 2**14
"""The payload that every peer takes (§4.2)."""

Field = tuple[bytes, bytes]


def code_name(code: int | None) -> str:
    """An error code by its name; "nothing" for None."""
    if code is None:
        return "nothing"
    return CODES[code] if code < len(CODES) else hex(code)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it arrived."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def __str__(self) -> str:
        name = NAMES[self.kind] if self.kind < len(NAMES) else f"type {self.kind:#x}"
        text = f"{name}(stream {self.stream}, flags {self.flags:#x}, {len(self.payload)} B"
        if self.kind in (RST_STREAM, GOAWAY):
            text += f", {code_name(self.code)}"
            if self.kind == GOAWAY:
                text += f", last {self.number}, {self.payload[8:]!r}"
        return text + ")"

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        at = 0 if self.kind == RST_STREAM else 4
        return int.from_bytes(self.payload[at : at + 4], "big")

    @property
    def number(self) -> int:
        """The first 31 bits of the payload: the increment of WINDOW_UPDATE, the last stream of GOAWAY."""
        return int.from_bytes(self.payload[:4], "big") & MAX_WINDOW

    @property
    def settings(self) -> dict[int, int]:
        """The pairs of a SETTINGS."""
        return dict(struct.iter_unpack(">HI", self.payload))


def parse(buffer: bytearray) -> Frame | None:
    """Take the first frame out of `buffer`; None when it is not whole."""
    if len(buffer) < 9:
        return None
    size = int.from_bytes(buffer[:3], "big")
    if len(buffer) < 9 + size:
        return None
    stream = int.from_bytes(buffer[5:9], "big")
    found = Frame(buffer[3], buffer[4], stream, bytes(buffer[9 : 9 + size]))
    del buffer[: 9 + size]
    return found


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame; `length` when the header is to lie about the payload's."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def data(stream: int, payload: bytes = b"", flags: int = 0, pad: int | None = None) -> bytes:
    """DATA, with `pad` octets of padding."""
    if pad is not None:
        payload, flags = bytes([pad]) + payload + bytes(pad), flags | PADDED
    return frame(DATA, flags, stream, payload)


def headers(
    stream: int,
    block: bytes,
    flags: int = END_HEADERS | END_STREAM,
    pad: int | None = None,
    priority: bytes | None = None,
) -> bytes:
    """HEADERS, with `pad` octets of padding and the five octets `priority`."""
    if priority is not None:
        block, flags = priority + block, flags | PRIORITISED
    if pad is not None:
        block, flags = bytes([pad]) + block + bytes(pad), flags | PADDED
    return frame(HEADERS, flags, stream, block)


def continuation(stream: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    """CONTINUATION."""
    return frame(CONTINUATION, flags, stream, block)


def priority(stream: int, dependency: int = 0, weight: int = 15, exclusive: bool = False) -> bytes:
    """PRIORITY."""
    return frame(PRIORITY, 0, stream, priority_fields(dependency, weight, exclusive))


def priority_fields(dependency: int = 0, weight: int = 15, exclusive: bool = False) -> bytes:
    """What PRIORITY and a prioritised HEADERS hold."""
    return (dependency | exclusive << 31).to_bytes(4, "big") + bytes([weight])


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def settings(*pairs: tuple[int, int], flags: int = 0) -> bytes:
    """SETTINGS."""
    return frame(SETTINGS, flags, 0, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


SETTINGS_ACK = settings(flags=ACK)


def ping(opaque: bytes = b"pillion!", flags: int = 0) -> bytes:
    """PING."""
    return frame(PING, flags, 0, opaque)


def goaway(last: int = 0, code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


# ---- header blocks


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer with a prefix of `bits` in an octet whose other bits are those of `first` (RFC 7541 §5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    found, value = bytearray([first | limit]), value - limit
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def string(value: bytes) -> bytes:
    """A string literal without Huffman coding (RFC 7541 §5.2)."""
    return integer(len(value), 7) + value


def literal(name: bytes | int, value: bytes, first: int = 0) -> bytes:
    """A literal field line; `first`: 0 without indexing, 0x10 never indexed, 0x40 indexed (§6.2). An int is an index."""
    bits = 6 if first == 0x40 else 4
    return (integer(name, bits, first) if isinstance(name, int) else bytes([first]) + string(name)) + string(value)


def indexed(index: int) -> bytes:
    """An indexed field line (§6.1)."""
    return integer(index, 7, 0x80)


def table_size(size: int) -> bytes:
    """A dynamic table size update (§6.3)."""
    return integer(size, 5, 0x20)


def block(*fields: Field) -> bytes:
    """A header block of literals without indexing."""
    return b"".join(literal(name, value) for name, value in fields)


def request(method: bytes = b"GET", path: bytes = b"/", *more: Field, authority: bytes = b"app") -> bytes:
    """The header block of a good request with the further fields `more`."""
    pseudo = ((b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path))
    return block(*pseudo, *more)


def response(status: bytes = b"200", *more: Field) -> bytes:
    """The header block of a response."""
    return block((b":status", status), *more)
