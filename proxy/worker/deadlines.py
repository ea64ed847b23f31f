"""The client's deadline (grpc-timeout): it holds here, and each hop passes on what is left of it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from proxy.policy.deadline import grpc_timeout, read_grpc_timeout

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState
    from proxy.routing.table import CompiledRoute
    from proxy.worker.exchange import Exchange


def heed_grpc_timeout(exchange: Exchange, route: CompiledRoute[ClusterState], value: bytes) -> None:
    """The client's deadline holds here, too, and beyond (max_stream_duration.grpc_timeout_header_max bounds it)."""
    seconds = read_grpc_timeout(value)
    if seconds is None:
        return
    most = route.grpc_timeout_header_max
    if most is not None:
        if most:
            seconds = min(seconds, most)
        seconds = max(seconds - route.grpc_timeout_header_offset, 0.0)
    exchange.grpc_deadline = deadline = exchange.started + seconds
    if most is not None or not exchange.stream_deadline or deadline < exchange.stream_deadline:
        exchange.stream_deadline = deadline


def time_left(exchange: Exchange, received: bytes) -> bytes:
    """The client's grpc-timeout, less what has passed here."""
    if not exchange.grpc_deadline:
        return received
    return grpc_timeout(exchange.grpc_deadline - monotonic())
