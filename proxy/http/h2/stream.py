"""One stream of a connection: its message, its windows, and what waits to be sent on it."""

from __future__ import annotations

from typing import Any, Final

from proxy.http.headers import Headers
from proxy.http.heads import NONE_SENSITIVE, Message, RequestMessage, ResponseHead

ANY_LENGTH: Final = -1
OPEN: Final = -1
"""The value of `reset` for a stream that nobody reset."""


class Stream:
    """A stream that is not closed (RFC 9113 §5.1).

    `message`: what arrives on it, once its head is there; with `message.done` the peer's side is closed. `interim`:
    informational responses, to be taken out. `reset`: the error code it was ended with, by the peer or for what the
    peer did (`broken` says what); OPEN otherwise. `refused`: the peer says that it has not looked at it. `choked`: some
    of what was to be sent waits for a window. `owner`: whoever serves it, who sets it.
    """

    __slots__ = (
        "broken",
        "choked",
        "ended",
        "held",
        "id",
        "interim",
        "interims",
        "left",
        "message",
        "method",
        "opened",
        "owner",
        "pending",
        "pending_end",
        "pending_size",
        "queued",
        "receive_window",
        "refused",
        "request",
        "reset",
        "send_window",
        "sensitive",
        "stuck",
        "too_large",
        "trailers",
        "unreturned",
        "upgrade",
    )

    def __init__(self, number: int, send_window: int, receive_window: int, now: float) -> None:
        self.id = number
        self.opened = now
        self.owner: Any = None
        self.message: Message | None = None
        self.interim: list[ResponseHead] = []
        self.interims = 0
        self.method = b""  # of the request, on the client's side
        self.upgrade = b""
        self.left = ANY_LENGTH  # what content-length says is still to come
        self.request: RequestMessage | None = None  # on the server's side
        self.too_large = False
        self.queued = False  # in the connection's `ready`
        self.reset = OPEN
        self.broken = ""
        self.refused = False
        self.ended = False  # our side is closed, or will be with what is pending
        # Flow control: what may be sent; what the peer may send, and how much of its window is to be given back.
        self.send_window = send_window
        self.receive_window = receive_window
        self.unreturned = 0
        self.held = False  # nothing is given back now: whoever takes it on is full
        self.stuck = 0  # what came while held
        self.pending: list[Any] = []
        self.pending_size = 0
        self.pending_end = False
        self.trailers: Headers = []
        self.sensitive = NONE_SENSITIVE
        self.choked = False
