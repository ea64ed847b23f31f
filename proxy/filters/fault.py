"""Which requests a fault hits, and how (envoy.extensions.filters.http.fault.v3.HTTPFault).

Not an entry of FILTERS: a fault is decided for each try, where the try meets its endpoint (proxy/worker/faults.py), so
that retries, outlier detection and deadlines see it as they would see a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.config.fault import Fault
from proxy.http.heads import RequestHead
from proxy.routing import matchers

DELAY: Final = b"x-envoy-fault-delay-request"
DELAY_PERCENTAGE: Final = b"x-envoy-fault-delay-request-percentage"
ABORT: Final = b"x-envoy-fault-abort-request"
ABORT_GRPC: Final = b"x-envoy-fault-abort-grpc-request"
ABORT_PERCENTAGE: Final = b"x-envoy-fault-abort-request-percentage"
NODE: Final = b"x-envoy-downstream-service-node"

_MAX_DELAY: Final = 3600.0
"""Seconds that a header may ask for."""


class Abort:
    """How a try ends. `http_status` None: by `grpc_status`, which is -1 when it is by the other."""

    __slots__ = ("grpc_status", "http_status")

    def __init__(self, http_status: int | None, grpc_status: int) -> None:
        self.http_status = http_status
        self.grpc_status = grpc_status


class FaultPolicy:
    """A fault, compiled. `ends`: monotonic seconds, 0 for never."""

    __slots__ = ("_abort", "_cluster", "_delay", "_headers", "_nodes", "ends", "max_active")

    def __init__(self, config: Fault, ends: float = 0.0) -> None:
        self._delay: Final = config.delay
        self._abort: Final = config.abort
        self._cluster: Final = config.upstream_cluster
        self._headers: Final = [matchers.header(matcher) for matcher in config.headers]
        self._nodes: Final = frozenset([node.encode() for node in config.downstream_nodes])
        self.max_active: Final = config.max_active
        self.ends: Final = ends

    def applies(self, head: RequestHead, cluster: str, now: float) -> bool:
        """Whether the fault is there, still, for this request to that cluster."""
        if self.ends and now >= self.ends:
            return False
        if self._cluster and self._cluster != cluster:
            return False
        if self._nodes and head.find(NODE) not in self._nodes:
            return False
        return all(matches(head) for matches in self._headers)

    def delay(self, head: RequestHead, draw: Callable[[], float]) -> float:
        """Seconds to wait; 0 for not at all. `draw()` is uniform in [0, 1)."""
        config = self._delay
        if config is None:
            return 0.0
        if config.seconds is not None:
            return config.seconds if draw() < config.fraction else 0.0
        milliseconds = _number(head.find(DELAY))
        if milliseconds <= 0 or draw() >= _fraction(head.find(DELAY_PERCENTAGE), config.fraction):
            return 0.0
        return min(milliseconds / 1000, _MAX_DELAY)

    def abort(self, head: RequestHead, draw: Callable[[], float]) -> Abort | None:
        """How the try is to end, if it is."""
        config = self._abort
        if config is None:
            return None
        http_status = config.http_status
        grpc_status = -1 if config.grpc_status is None else config.grpc_status
        fraction = config.fraction
        if http_status is None and grpc_status < 0:
            asked = _number(head.find(ABORT))
            if 200 <= asked < 600:
                http_status = asked
            else:
                grpc_status = _number(head.find(ABORT_GRPC))
                if grpc_status < 0:
                    return None
            fraction = _fraction(head.find(ABORT_PERCENTAGE), fraction)
        return Abort(http_status, grpc_status) if draw() < fraction else None


def _number(value: bytes | None) -> int:
    """A header's number; -1 without one."""
    return int(value) if value is not None and value.isdigit() and len(value) < 10 else -1


def _fraction(value: bytes | None, most: float) -> float:
    """A header's percentage, which may only lower that of the configuration."""
    asked = _number(value)
    return most if asked < 0 else min(asked / 100, most)
