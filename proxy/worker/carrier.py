"""Who answers: what an exchange needs of the connection or stream that carries its request to an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.headers import Headers
from proxy.http.heads import RequestHead
from proxy.worker.timers import Timed

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange


class Carrier(Timed):
    """The base of an HTTP/1.1 connection and of an HTTP/2 stream.

    `trusted`: mutual TLS with a verified peer, so that what sidecars tell each other in headers counts. `sent_all`: the
    request is written, `write_paused`: no more of it is taken for now."""

    __slots__ = ("exchange", "multiplexed", "sent_all", "trusted", "write_paused")

    def __init__(self, multiplexed: bool) -> None:
        super().__init__()
        self.exchange: Exchange | None = None
        self.multiplexed = multiplexed
        self.sent_all = True
        self.trusted = False
        self.write_paused = False

    def begin(
        self,
        exchange: Exchange,
        head: RequestHead,
        target: bytes,
        authority: bytes,
        extra: Headers,
        chunks: list[bytes],
        done: bool,
        trailers: Headers,
    ) -> None:
        """Send a request's head, with `extra` fields, and what there is of its body, in one write."""
        raise NotImplementedError

    def send(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        """Send more of the request's body, or its end."""
        raise NotImplementedError

    def switch(self) -> None:
        """The upstream agreed to another protocol: `send` takes bytes as they are, and its end is passed on."""
        raise NotImplementedError

    def end_exchange(self) -> None:
        """Request and response are complete."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break off at once; nothing more is told to the exchange."""
        raise NotImplementedError

    def finish(self) -> None:
        """End a tunnel in order: the upstream gets what was sent; nothing more is told to the exchange."""
        raise NotImplementedError

    def pause_response(self) -> None:
        """The client takes no more for now."""
        raise NotImplementedError

    def resume_response(self) -> None:
        """The client takes more."""
        raise NotImplementedError
