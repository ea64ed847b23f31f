"""What this hop adds to a request that it passes on."""

from __future__ import annotations

from random import randbytes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange


def request_lines(exchange: Exchange) -> bytes:
    """The header lines that were lifted out of the request, or are ours: scheme, request id, trace, client's
    certificate."""
    state, head, downstream = exchange.state, exchange.head, exchange.downstream
    lines = b"x-forwarded-proto: %b\r\n" % (head.forwarded_proto or downstream.scheme)
    if exchange.request_id is not None:
        lines += b"x-request-id: %b\r\n" % exchange.request_id
    if exchange.trace is not None:
        lines += b"traceparent: %b\r\n" % exchange.trace.traceparent()
    elif head.traceparent:
        lines += b"traceparent: %b\r\n" % head.traceparent
    client_cert = state.client_cert(head.client_cert, downstream.xfcc)
    if client_cert is not None:
        lines += b"x-forwarded-client-cert: %b\r\n" % client_cert
    return lines


class RequestIds:
    """Version 4 UUIDs (RFC 9562 §5.4) from the fast generator: identifiers, not secrets. Random digits are drawn for
    many at once."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = b""
        self._at = 0

    def next(self) -> bytes:
        """A new identifier."""
        digits, at = self._digits, self._at
        if at >= len(digits):
            self._digits = digits = randbytes(_DRAWN).hex().encode()
            at = 0
        self._at = at + 32
        return b"%b-%b-4%b-%b%b-%b" % (
            digits[at : at + 8],
            digits[at + 8 : at + 12],
            digits[at + 13 : at + 16],
            _VARIANT[digits[at + 16] & 3],
            digits[at + 17 : at + 20],
            digits[at + 20 : at + 32],
        )


_DRAWN: Final = 16 * 128
_VARIANT: Final = (b"8", b"9", b"a", b"b")
request_ids: Final = RequestIds()
