"""Where load balancing meets an exchange beyond the pick itself. Called only where a route has hash policies or
asks for a subset, or a cluster balances by latency."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from proxy.http.heads import ResponseHead
from proxy.policy.balance.hosts import Context
from proxy.policy.hash_policy import hash_request

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState
    from proxy.routing.table import CompiledRoute
    from proxy.worker.exchange import Exchange


def place(exchange: Exchange, route: CompiledRoute[ClusterState], draw: Callable[[], float]) -> ClusterState:
    """The cluster of a request, as CompiledRoute.target gives it; and work out what picks from it depend on."""
    context = Context()
    if route.hash_policy:
        connection = exchange.downstream.address + exchange.state.name
        context = hash_request(route.hash_policy, exchange.head, exchange.downstream_address(), connection)
    exchange.context = context
    index = route.target_index(draw)
    if route.metadata:
        context.metadata = route.metadata[index]
    return route.targets[index][1]


def begin_try(exchange: Exchange, cluster: ClusterState) -> None:
    """For peak EWMA: a try begins; one before it that had no answer cost what has passed since."""
    now = monotonic()
    if exchange.tried_at and exchange._tried:
        failed = exchange._tried[-1]
        failed.latency.failed(now - exchange.tried_at, now, cluster.config.load_balancing)
    exchange.tried_at = now


def end_try(exchange: Exchange, status: int) -> None:
    """For peak EWMA: the answer's head has come, or none will (0)."""
    now, began, cluster, endpoint = monotonic(), exchange.tried_at, exchange.cluster, exchange.endpoint
    exchange.tried_at = 0.0
    if cluster is None or endpoint is None:
        return
    if 0 < status < 500:
        endpoint.latency.answered(now - began, now, cluster.config.load_balancing)
    else:
        endpoint.latency.failed(now - began, now, cluster.config.load_balancing)


def set_cookies(exchange: Exchange, head: ResponseHead) -> None:
    """Give the client the cookies that bring it back."""
    context = exchange.context
    if context is not None:
        head.headers += [(b"set-cookie", cookie) for cookie in context.set_cookies]
