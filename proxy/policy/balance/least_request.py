"""Least request (LbPolicy.LEAST_REQUEST): the best of a few random choices."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from proxy.config.balance import LoadBalancing
from proxy.policy.balance.hosts import Context, H, Picker, other


class LeastRequest(Picker[H]):
    """Power of `choice_count` choices over requests in flight. Equal weights: O(1). Unequal: hosts are drawn by weight,
    O(log n), and compared by their requests in flight per weight, so that the shares follow the weights also while
    nothing is in flight."""

    __slots__ = ("_bounds", "_choices", "_draw", "_hosts")

    def __init__(self, hosts: Sequence[H], draw: Callable[[], float], config: LoadBalancing) -> None:
        self._hosts = tuple(hosts)
        self._draw = draw
        self._choices = config.choice_count
        self._bounds: list[int] = []
        if len({host.weight for host in hosts}) > 1:
            self._bounds = list(accumulate([host.weight for host in hosts]))

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """The least loaded of the hosts drawn."""
        hosts = self._hosts
        count = len(hosts)
        if count < 2:
            return hosts[0] if count else None
        if self._bounds:
            first, second = self._two_by_weight()
        else:
            first = int(self._draw() * count)
            second = int(self._draw() * (count - 1))
            if second >= first:
                second += 1  # two different hosts
        one, two = hosts[first], hosts[second]
        if two.active * one.weight < one.active * two.weight:
            one, two = two, one
        if self._choices > 2:
            for _ in range(self._choices - 2):
                more = hosts[self._index(self._draw()) if self._bounds else int(self._draw() * count)]
                if more.active * one.weight < one.active * more.weight:
                    one, two = more, one
        if not avoid or one not in avoid:
            return one
        return two if two not in avoid else other(hosts, avoid, first)

    def _two_by_weight(self) -> tuple[int, int]:
        """Two different hosts; the second is drawn as if the first were not there."""
        bounds = self._bounds
        first = self._index(self._draw())
        below = bounds[first - 1] if first else 0
        own = bounds[first] - below
        point = self._draw() * (bounds[-1] - own)
        if point >= below:
            point += own
        return first, min(bisect_right(bounds, point), len(bounds) - 1)

    def _index(self, drawn: float) -> int:
        bounds = self._bounds
        return min(bisect_right(bounds, drawn * bounds[-1]), len(bounds) - 1)
