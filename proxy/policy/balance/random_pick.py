"""Random (LbPolicy.RANDOM), by weight."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from proxy.policy.balance.hosts import Context, H, Picker, other


class RandomPick(Picker[H]):
    """Uniform over the weights: one draw and a bisection, O(log n)."""

    __slots__ = ("_bounds", "_draw", "_hosts")

    def __init__(self, hosts: Sequence[H], draw: Callable[[], float]) -> None:
        self._hosts = tuple(hosts)
        self._bounds = list(accumulate([host.weight for host in hosts]))
        self._draw = draw

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """A host drawn by weight."""
        if not self._hosts:
            return None
        index = bisect_right(self._bounds, self._draw() * self._bounds[-1])
        host = self._hosts[min(index, len(self._hosts) - 1)]
        return host if host not in avoid else other(self._hosts, avoid, index)
