"""Who asks: what an exchange needs of the connection or stream that its request came on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.headers import Headers
from proxy.http.heads import ResponseHead
from proxy.worker.timers import Timed

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange
    from proxy.worker.listener import ListenerSlot


class Client(Timed):
    """The base of an HTTP/1.1 connection and of an HTTP/2 stream. `closing`: no request after the current one."""

    __slots__ = (
        "_body_due",
        "_moved",
        "_slot",
        "address",
        "closing",
        "exchange",
        "multiplexed",
        "peer_uri",
        "scheme",
        "xfcc",
    )

    def __init__(self, slot: ListenerSlot, address: str, multiplexed: bool) -> None:
        super().__init__()
        self._slot = slot
        self.address = address
        self.multiplexed = multiplexed
        self.peer_uri = ""
        self.xfcc: bytes | None = None
        self.scheme = b"http"
        self.exchange: Exchange | None = None
        self.closing = False
        self._body_due = 0.0  # when the request under way must have arrived whole
        self._moved = 0.0  # when something last came or went

    # ---- the request's body

    def pause_request(self) -> None:
        """The upstream takes no more for now."""
        raise NotImplementedError

    def resume_request(self) -> None:
        """The upstream takes more."""
        raise NotImplementedError

    def switch(self) -> None:
        """What the client sends from now on is the upstream's, whatever it means."""
        raise NotImplementedError

    # ---- the answer

    def respond(
        self, exchange: Exchange, head: ResponseHead, chunks: list[bytes], done: bool, trailers: Headers
    ) -> None:
        """Write the head of the answer and what there is of its body, at once."""
        raise NotImplementedError

    def interim(self, head: ResponseHead) -> None:
        """Pass on an informational response (RFC 9110 §15.2)."""
        raise NotImplementedError

    def more(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        """Write more of the answer's body, or its end."""
        raise NotImplementedError

    def finished(self, keep: bool, now: float) -> None:
        """The exchange is over; its answer is written. `keep`: its request was read to the end."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break off, in the middle of an answer."""
        raise NotImplementedError

    # ---- time

    def hasten(self, deadline: float) -> None:
        """The exchange under way has a deadline that it did not have before."""
        raise NotImplementedError

    def _exchange_deadline(self, exchange: Exchange) -> float:
        """The earliest of what can come due while an exchange is under way; 0 if nothing can."""
        route = exchange.route
        idle = route.idle_timeout if route is not None else exchange.state.config.stream_idle_timeout
        deadline = exchange.request_deadline
        if idle and (not deadline or self._moved + idle < deadline):
            deadline = self._moved + idle
        if exchange.stream_deadline and (not deadline or exchange.stream_deadline < deadline):
            deadline = exchange.stream_deadline
        if exchange.try_deadline and (not deadline or exchange.try_deadline < deadline):
            deadline = exchange.try_deadline
        if self._body_due and not exchange.message.done and (not deadline or self._body_due < deadline):
            deadline = self._body_due
        return deadline

    def _on_exchange_deadline(self, exchange: Exchange, now: float) -> bool:
        """End the exchange if one of its times has come; False if none has."""
        route = exchange.route
        idle = route.idle_timeout if route is not None else exchange.state.config.stream_idle_timeout
        if exchange.request_deadline and exchange.request_deadline <= now:
            exchange.on_deadline(now)
        elif exchange.stream_deadline and exchange.stream_deadline <= now:
            exchange.on_stream_too_long()
        elif exchange.try_deadline and exchange.try_deadline <= now:
            exchange.on_try_deadline()
        elif self._body_due and self._body_due <= now and not exchange.message.done:
            exchange.on_request_timeout()
        elif idle and self._moved + idle <= now:
            exchange.on_idle()
        else:
            return False
        return True
