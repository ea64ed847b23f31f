"""From the name of a policy to its picker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.config.balance import LoadBalancing
from proxy.policy.balance.hosts import H, Picker
from proxy.policy.balance.least_request import LeastRequest
from proxy.policy.balance.maglev import Maglev
from proxy.policy.balance.peak_ewma import PeakEwma
from proxy.policy.balance.random_pick import RandomPick
from proxy.policy.balance.ring_hash import Points, RingHash
from proxy.policy.balance.round_robin import RoundRobin
from proxy.policy.balance.slow_start import Warming


class Building:
    """What pickers are made of: an envoy.config.cluster.v3.Cluster.LbPolicy (or PEAK_EWMA) and its options. `draw()` is
    uniform in [0, 1), `now()` in monotonic seconds."""

    __slots__ = ("_points", "config", "draw", "hashed", "now", "policy")

    def __init__(self, policy: str, config: LoadBalancing, draw: Callable[[], float], now: Callable[[], float]) -> None:
        """Raises ValueError for a policy that does not exist."""
        if policy not in ("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV", "PEAK_EWMA"):
            raise ValueError(f"unknown load balancing policy {policy!r}")
        self.policy = policy
        self.config = config
        self.draw = draw
        self.now = now
        self.hashed = policy in ("RING_HASH", "MAGLEV")
        self._points = Points()

    def leaf(self, hosts: Sequence[H], weights: Sequence[float] | None = None) -> Picker[H]:
        """The picker of the policy over hosts that serve, with slow start where one is in its window. `weights`, which
        only ring hash and Maglev take, stand in place of those of the hosts."""
        picker = self._plain(hosts, weights)
        slow_start = self.config.slow_start
        if slow_start is None:
            return picker
        begun = self.now() - slow_start.window
        if all(host.since <= begun for host in hosts):
            return picker
        return Warming(picker, hosts, slow_start, self.draw, self.now)

    def _plain(self, hosts: Sequence[H], weights: Sequence[float] | None = None) -> Picker[H]:
        if self.policy == "LEAST_REQUEST":
            return LeastRequest(hosts, self.draw, self.config)
        if self.policy == "RANDOM":
            return RandomPick(hosts, self.draw)
        if self.policy == "RING_HASH":
            return RingHash(hosts, self.draw, self.config, self._points, weights)
        if self.policy == "MAGLEV":
            return Maglev(hosts, self.draw, self.config, weights)
        if self.policy == "PEAK_EWMA":
            return PeakEwma(hosts, self.draw, self.now, self.config)
        return RoundRobin(hosts, self.draw)

    def finished(self) -> None:
        """All of a cluster's pickers are made: what they had in common is kept for the next time, and nothing else."""
        self._points.forget()
