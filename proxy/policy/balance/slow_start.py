"""Slow start (envoy.config.cluster.v3.Cluster.SlowStartConfig): who has just come gets little at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from proxy.config.balance import SlowStart
from proxy.policy.balance.hosts import Context, H, Picker

_TRIES: Final = 8


class Warming(Picker[H]):
    """Over another picker: a host in its window is taken only as often as its weight has grown, or it is the next one's
    turn. O(1) beside those picks; once all windows are over it is one clock reading."""

    __slots__ = ("_config", "_draw", "_inner", "_now", "_until")

    def __init__(
        self,
        inner: Picker[H],
        hosts: Sequence[H],
        config: SlowStart,
        draw: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._config = config
        self._draw = draw
        self._now = now
        self._until = max([host.since for host in hosts], default=0.0) + config.window

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """As the other picker, by the weights of this moment."""
        inner = self._inner
        host = inner.pick(avoid, context)
        now = self._now()
        if now >= self._until:
            return host
        for _ in range(_TRIES):
            if host is None or now >= host.since + self._config.window:
                return host
            if self._draw() < share(now - host.since, self._config):
                return host
            host = inner.pick(avoid, context)
        return host


def share(age: float, config: SlowStart) -> float:
    """What a host that has served for `age` seconds gets of its weight."""
    grown: float = (max(age, 0.0) / config.window) ** (1.0 / config.aggression)
    return min(1.0, max(config.min_weight_percent / 100, grown))
