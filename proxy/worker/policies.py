"""Where the policies on heads (http.head_policy, routing.mutations) meet an exchange. Called only where one is
configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.head_policy import HeadRefused, RequestPolicy
from proxy.http.headers import find
from proxy.http.heads import ResponseHead
from proxy.http.path import PathRedirected

if TYPE_CHECKING:
    from proxy.routing.mutations import HeaderEdits
    from proxy.worker.exchange import Exchange
    from proxy.worker.recovery import Recovery


def admit(exchange: Exchange, policy: RequestPolicy) -> bool:
    """Apply the listener's policy to the request's head. False: the request was answered here."""
    downstream = exchange.downstream
    try:
        policy.apply(exchange.head, downstream.address)
    except HeadRefused as refused:
        downstream.closing = True
        exchange.reply(refused.kind, str(refused))
        return False
    except PathRedirected as redirected:
        exchange.details = "path_normalized_redirect"
        exchange._respond_whole(ResponseHead(307, b"", [(b"location", _location(exchange, redirected.target))]), b"")
        return False
    return True


def _location(exchange: Exchange, target: bytes) -> bytes:
    """A target that begins with two slashes would name another host (RFC 3986 §4.2): then all of the URI is written,
    where Envoy sends the client to whatever host the path names."""
    if not target.startswith(b"//"):
        return target
    head = exchange.head
    scheme = b"https" if (head.forwarded_proto or exchange.downstream.scheme) == b"https" else b"http"
    return scheme + b"://" + head.authority + target


def edit_request(exchange: Exchange, edits: HeaderEdits) -> None:
    """Apply a route's edits to a request, also to the fields that parsing lifted out of its headers."""
    head, names = exchange.head, edits.names
    headers = head.headers
    lift_id, lift_proto = b"x-request-id" in names, b"x-forwarded-proto" in names
    if lift_id and exchange.request_id is not None:
        headers.append((b"x-request-id", exchange.request_id))
    if lift_proto:
        headers.append((b"x-forwarded-proto", head.forwarded_proto or exchange.downstream.scheme))
    edits.apply(headers, exchange)
    if lift_id:
        exchange.request_id = find(headers, b"x-request-id")
    if lift_proto:
        head.forwarded_proto = find(headers, b"x-forwarded-proto")
    if lift_id or lift_proto:
        head.headers = [pair for pair in headers if pair[0] not in (b"x-request-id", b"x-forwarded-proto")]


def edit_response(exchange: Recovery, edits: HeaderEdits, head: ResponseHead) -> None:
    """Apply a route's edits to a response. What they say of Server counts unless the listener overwrites it."""
    headers, names = head.headers, edits.names
    if b"server" in names and head.server is not None:
        headers.append((b"server", head.server))
    edits.apply(headers, exchange)
    if b"server" in names:
        head.server = find(headers, b"server")
        head.headers = [pair for pair in headers if pair[0] != b"server"]
    if b"date" in names:
        head.dated = find(headers, b"date") is not None
