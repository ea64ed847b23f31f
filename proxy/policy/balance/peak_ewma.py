"""Peak EWMA, as in Finagle and Linkerd: the better of two random choices by how long their answers take.

An endpoint's latency is a moving average that follows a slower answer at once and a faster one slowly; while nothing
is heard of an endpoint its average decays, so that it is tried again. What is compared is latency times requests in
flight, by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.config.balance import LoadBalancing
from proxy.policy.balance.hosts import Context, H, Picker, other


class PeakEwma(Picker[H]):
    """O(1) a pick. `now()` is in monotonic seconds."""

    __slots__ = ("_config", "_draw", "_hosts", "_now")

    def __init__(
        self, hosts: Sequence[H], draw: Callable[[], float], now: Callable[[], float], config: LoadBalancing
    ) -> None:
        self._hosts = tuple(hosts)
        self._draw = draw
        self._now = now
        self._config = config

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """The one of two hosts drawn at random that is likely to answer sooner."""
        hosts = self._hosts
        count = len(hosts)
        if count < 2:
            return hosts[0] if count else None
        first = int(self._draw() * count)
        second = int(self._draw() * (count - 1))
        if second >= first:
            second += 1  # two different hosts
        one, two = hosts[first], hosts[second]
        now, config = self._now(), self._config
        load_one = one.latency.estimate(now, config) * (one.active + 1) * two.weight
        load_two = two.latency.estimate(now, config) * (two.active + 1) * one.weight
        if load_two < load_one:
            one, two = two, one
        if not avoid or one not in avoid:
            return one
        return two if two not in avoid else other(hosts, avoid, first)
