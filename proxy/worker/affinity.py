"""Where a request's own properties decide on its endpoint (policy.hash_policy) meets an exchange. Called only where a
route has such a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.heads import ResponseHead
from proxy.policy.hash_policy import hash_request

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState
    from proxy.routing.table import CompiledRoute
    from proxy.worker.exchange import Exchange


def note(exchange: Exchange, route: CompiledRoute[ClusterState]) -> None:
    """Work out what picks depend on."""
    connection = exchange.downstream.address + exchange.state.name
    exchange.context = hash_request(route.hash_policy, exchange.head, exchange.downstream_address(), connection)


def set_cookies(exchange: Exchange, head: ResponseHead) -> None:
    """Give the client the cookies that bring it back."""
    context = exchange.context
    if context is not None:
        head.headers += [(b"set-cookie", cookie) for cookie in context.set_cookies]
