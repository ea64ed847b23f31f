"""What this hop adds to a request that it passes on."""

from __future__ import annotations

from random import randbytes
from typing import TYPE_CHECKING, Final

from proxy.http.headers import Headers
from proxy.worker.deadlines import time_left

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange


def request_fields(exchange: Exchange) -> Headers:
    """The fields that were lifted out of the request, or are ours: scheme, request id, trace, what is left of the time,
    client's certificate."""
    state, head, downstream = exchange.state, exchange.head, exchange.downstream
    fields = [(b"x-forwarded-proto", head.forwarded_proto or downstream.scheme)]
    if exchange.request_id is not None:
        fields.append((b"x-request-id", exchange.request_id))
    if exchange.trace is not None:
        fields.append((b"traceparent", exchange.trace.traceparent()))
    elif head.traceparent:
        fields.append((b"traceparent", head.traceparent))
    if head.grpc_timeout is not None:
        fields.append((b"grpc-timeout", time_left(exchange, head.grpc_timeout)))
    client_cert = state.client_cert(head.client_cert, downstream.xfcc)
    if client_cert is not None:
        fields.append((b"x-forwarded-client-cert", client_cert))
    return fields


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
