"""Frames (RFC 9113 §4 and §6): their numbers, and those that we write as bytes."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 §3.4)."""

# Types (§6).
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

# Error codes (§7).
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
CONNECT_ERROR: Final = 10
ENHANCE_YOUR_CALM: Final = 11
CODES: Final = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
"""Their names, by number."""

# Settings (§6.5.2, RFC 8441 §3).
HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8

DEFAULT_WINDOW: Final = 65_535
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_FRAME_SIZE: Final = 16_384
MAX_STREAM: Final = 2**31 - 1

_pack_head: Final = struct.Struct(">HBBBL").pack
_pack_long: Final = struct.Struct(">HBBBLL").pack
_pack_setting: Final = struct.Struct(">HL").pack
SETTINGS_ACK: Final = b"\0\0\0\x04\x01\0\0\0\0"


class ConnectionFailed(Exception):
    """The peer broke the connection's rules: GOAWAY with `code`, and no more (RFC 9113 §5.4.1)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def code_name(code: int) -> str:
    """The name of an error code."""
    return CODES[code] if 0 <= code < len(CODES) else f"code {code}"


def frame_head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine octets before a payload of `size`."""
    return _pack_head(size >> 8, size & 255, kind, flags, stream)


def rst_stream(stream: int, code: int) -> bytes:
    """RST_STREAM (§6.4)."""
    return _pack_long(0, 4, RST_STREAM, 0, stream, code)


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE (§6.9)."""
    return _pack_long(0, 4, WINDOW_UPDATE, 0, stream, increment)


def settings(values: list[tuple[int, int]]) -> bytes:
    """SETTINGS (§6.5)."""
    payload = b"".join([_pack_setting(name, value) for name, value in values])
    return frame_head(len(payload), SETTINGS, 0, 0) + payload


def ping(opaque: bytes, ack: bool) -> bytes:
    """PING (§6.7); `opaque` is eight octets."""
    return frame_head(8, PING, ACK if ack else 0, 0) + opaque


def goaway(last_stream: int, code: int, text: str) -> bytes:
    """GOAWAY (§6.8). `text` is for whoever reads the other side's log."""
    debug = text.encode()
    return frame_head(8 + len(debug), GOAWAY, 0, 0) + struct.pack(">LL", last_stream, code) + debug
