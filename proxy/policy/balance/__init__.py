"""WHICH ENDPOINT: pickers over a fixed list of hosts. A change of hosts makes a new picker.

A picker gives a host that is not among those to avoid (already tried), any host when all are to be avoided, and None
only when there are none. A pick is O(1) or O(log n) in the number of hosts; avoiding costs more, and happens only on
a retry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from proxy.config.balance import LB_DEFAULTS, LoadBalancing
from proxy.policy.balance.hosts import Context, H, Picker
from proxy.policy.balance.least_request import LeastRequest
from proxy.policy.balance.maglev import Maglev
from proxy.policy.balance.peak_ewma import PeakEwma
from proxy.policy.balance.random_pick import RandomPick
from proxy.policy.balance.ring_hash import Points, RingHash
from proxy.policy.balance.round_robin import RoundRobin

__all__ = ["Context", "Picker", "Points", "build"]


def build(
    policy: str,
    hosts: Sequence[H],
    draw: Callable[[], float],
    config: LoadBalancing = LB_DEFAULTS,
    points: Points | None = None,
    now: Callable[[], float] = monotonic,
) -> Picker[H]:
    """The picker of an envoy.config.cluster.v3.Cluster.LbPolicy. `draw()` is uniform in [0, 1), `now()` in monotonic
    seconds; `points` keeps the places of ring hash's hosts."""
    match policy:
        case "LEAST_REQUEST":
            return LeastRequest(hosts, draw, config)
        case "PEAK_EWMA":
            return PeakEwma(hosts, draw, now, config)
        case "RANDOM":
            return RandomPick(hosts, draw)
        case "ROUND_ROBIN":
            return RoundRobin(hosts, draw)
        case "RING_HASH":
            return RingHash(hosts, draw, config, points or Points())
        case "MAGLEV":
            return Maglev(hosts, draw, config)
    raise ValueError(f"unknown load balancing policy {policy!r}")
