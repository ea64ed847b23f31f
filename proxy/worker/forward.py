"""What this hop adds to a request that it passes on."""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING

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


def append_forwarded_for(exchange: Exchange) -> None:
    """What an edge listener says of its client (HttpConnectionManager.use_remote_address): its address goes behind
    what it claims in x-forwarded-for, and its own x-forwarded-proto is not believed."""
    head, client = exchange.head, exchange.downstream.address.rpartition(":")[0].encode()
    claimed = [value for name, value in head.headers if name == b"x-forwarded-for"]
    head.headers = [pair for pair in head.headers if pair[0] != b"x-forwarded-for"]
    head.headers.append((b"x-forwarded-for", b",".join([*claimed, client])))
    head.forwarded_proto = None


def request_id() -> bytes:
    """A version 4 UUID (RFC 9562 §5.4) from the fast generator: an identifier, not a secret."""
    digits = b"%032x" % ((getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62)) | (0x4 << 76) | (0x2 << 62))
    return b"%b-%b-%b-%b-%b" % (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
