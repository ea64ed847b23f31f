"""The handshake of WebSocket in HTTP/1.1 (RFC 6455 §4), where the other side of the proxy has none."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def key(random: bytes) -> bytes:
    """A Sec-WebSocket-Key of sixteen random bytes."""
    return base64.b64encode(random)


def accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a key."""
    return base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())
