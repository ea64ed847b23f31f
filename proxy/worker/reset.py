"""Resets that came together with data.

libuv stops polling a socket with an error pending and tells of it once. Whoever reads then gets data, if there is any
before the reset, and hears no more of the socket. So whoever still waits for more asks whether the socket is dead,
and if it is, has it polled anew: each time brings what was queued before the reset, and at last the reset.
"""

from __future__ import annotations

import socket
from typing import Any, Final

_ESTABLISHED: Final = 1
_CLOSE: Final = 7
"""tcpi_state (linux/tcp.h)."""


def _state(sock: Any) -> int:
    info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0]


def was_reset(sock: Any) -> bool:
    """Whether the peer has reset the connection of this socket or TransportSocket."""
    return _state(sock) == _CLOSE


def is_open(sock: Any) -> bool:
    """Whether neither side has ended the connection."""
    return _state(sock) == _ESTABLISHED


def poll_again(transport: Any) -> None:
    """Have a transport's socket polled anew if it was reset."""
    if not transport.is_closing() and was_reset(transport.get_extra_info("socket")):
        transport.pause_reading()
        transport.resume_reading()
