"""Least request (LbPolicy.LEAST_REQUEST): the better of two random choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.policy.balance.hosts import Context, H, Picker, other


class LeastRequest(Picker[H]):
    """Power of two choices over requests in flight, divided by weight. O(1).

    Envoy's choice_count 2; the weight enters as active_request_bias 1: load = (active + 1) / weight."""

    __slots__ = ("_draw", "_hosts")

    def __init__(self, hosts: Sequence[H], draw: Callable[[], float]) -> None:
        self._hosts = tuple(hosts)
        self._draw = draw

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """The less loaded of two hosts drawn at random."""
        hosts = self._hosts
        count = len(hosts)
        if count < 2:
            return hosts[0] if count else None
        first = int(self._draw() * count)
        second = int(self._draw() * (count - 1))
        if second >= first:
            second += 1  # two different hosts
        one, two = hosts[first], hosts[second]
        if (two.active + 1) * one.weight < (one.active + 1) * two.weight:
            one, two = two, one
        if not avoid or one not in avoid:
            return one
        return two if two not in avoid else other(hosts, avoid, first)
