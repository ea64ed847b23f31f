"""Where a request for another protocol meets an exchange: Upgrade, CONNECT, and the WebSocket between HTTP/1.1 and
HTTP/2. Called only for such requests."""

from __future__ import annotations

from random import randbytes
from typing import TYPE_CHECKING

from proxy import errors
from proxy.http import websocket
from proxy.http.headers import find, tokens
from proxy.http.heads import CONNECT, NO_UPGRADE, RequestHead, ResponseHead

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange


def match_upgrade(exchange: Exchange) -> bool:
    """Find the route of a request that asks for another protocol, and what of that is passed on: what the route, or
    else the listener, lets through (upgrade_configs). False: the request was answered here."""
    head, routes, upgrades = exchange.head, exchange.state.routes, exchange.state.upgrades
    if head.upgrade != CONNECT:
        exchange.route = route = routes.match(head)
        if route is None or route.forward is None:
            head.upgrade = NO_UPGRADE  # RFC 9110 §7.8: a server may ignore it
        else:
            # HTTP/2 would bypass whatever is decided on each request.
            asked = [
                name for name in tokens(head.upgrade) if name != b"h2c" and route.upgrades.get(name, name in upgrades)
            ]
            head.upgrade = b", ".join(asked)
        if exchange.downstream.multiplexed and route is not None and not head.upgrade:
            exchange.reply(errors.UPGRADE_NOT_ALLOWED)  # what goes for a request without it would look like consent
            return False
        return True
    # What follows a CONNECT may not be HTTP, whatever the answer.
    exchange.downstream.closing = True
    exchange.route = route = routes.match_connect(head)
    if route is None or (route.forward is not None and not route.upgrades.get(CONNECT, CONNECT in upgrades)):
        exchange.reply(errors.CONNECT_NOT_ALLOWED)
        return False
    return True


def add_websocket_key(head: RequestHead) -> None:
    """A client on HTTP/2 has no Sec-WebSocket-Key (RFC 8441 §5), and an upstream on HTTP/1.1 needs one."""
    if find(head.headers, b"sec-websocket-key") is None:
        head.headers.append((b"sec-websocket-key", websocket.key(randbytes(16))))


def bridge_websocket(exchange: Exchange, head: ResponseHead) -> bool:
    """One side of a WebSocket is HTTP/1.1, whose handshake has a key and its digest (RFC 6455 §4), the other is HTTP/2,
    which needs none (RFC 8441 §5). A client on HTTP/1.1 gets its digest from here; for one on HTTP/2 the upstream's is
    checked here: False when it is not the key's. It is passed on: the client may be a proxy with one on HTTP/1.1."""
    digest = websocket.accept(find(exchange.head.headers, b"sec-websocket-key") or b"")
    if exchange.downstream.multiplexed:
        return find(head.headers, b"sec-websocket-accept") == digest
    head.headers = [pair for pair in head.headers if pair[0] != b"sec-websocket-accept"]
    head.headers.append((b"sec-websocket-accept", digest))
    return True
