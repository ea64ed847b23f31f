"""How much each priority gets (Envoy's "Priority levels", "Degraded endpoints" and "Panic threshold").

A priority is whole as long as health times the overprovisioning factor is 100 %; what it lacks goes to the next. What
all of them lack together is spread over them by their health, and each that has less healthy endpoints than
the panic threshold then uses all that it has. Integers, rounded as in Envoy.
"""

from __future__ import annotations

from collections.abc import Sequence


class Level:
    """How many endpoints of a priority there are, and how many of them are healthy and degraded."""

    __slots__ = ("degraded", "healthy", "total")

    def __init__(self, total: int, healthy: int, degraded: int = 0) -> None:
        self.total = total
        self.healthy = healthy
        self.degraded = degraded


class Load:
    """What a priority gets, in percent of all requests: its healthy endpoints and its degraded ones; in `panic` they
    are not told apart, nor from the others, and `healthy` is for all."""

    __slots__ = ("degraded", "healthy", "panic")

    def __init__(self) -> None:
        self.healthy = 0
        self.degraded = 0
        self.panic = False


def loads(levels: Sequence[Level], overprovisioning: int, panic_threshold: float) -> list[Load]:
    """One Load for each Level, highest priority first. `overprovisioning` and `panic_threshold` are percentages."""
    found = [Load() for _ in levels]
    if not levels:
        return found
    health = [_available(level.healthy, level.total, overprovisioning) for level in levels]
    degraded = [_available(level.degraded, level.total, overprovisioning) for level in levels]
    total = min(100, sum(health) + sum(degraded))
    if total < 100:
        for level, load in zip(levels, found, strict=True):
            serving = 100 * (level.healthy + level.degraded) / level.total if level.total else 0.0
            load.panic = serving < panic_threshold
        if all(load.panic for load in found):
            _by_size(levels, found)
            return found
    if total == 0:
        found[0].healthy = 100
        return found
    left = 100
    for index, load in enumerate(found):
        load.healthy = min(left, health[index] * 100 // total)
        left -= load.healthy
    for index, load in enumerate(found):
        load.degraded = min(left, degraded[index] * 100 // total)
        left -= load.degraded
    first = next(load for load in found if load.healthy or load.degraded)
    if first.healthy:  # what rounding left
        first.healthy += left
    else:
        first.degraded += left
    for load in found:
        if load.panic:
            load.healthy, load.degraded = load.healthy + load.degraded, 0
    return found


def _available(serving: int, total: int, overprovisioning: int) -> int:
    return min(100, max(1, overprovisioning * serving // total)) if serving else 0


def _by_size(levels: Sequence[Level], found: list[Load]) -> None:
    """All are in panic: each gets what its number of endpoints is of all."""
    size = sum(level.total for level in levels)
    left = 100
    for level, load in zip(levels, found, strict=True):
        load.healthy = level.total * 100 // size if size else 0
        left -= load.healthy
    first = next((load for load in found if load.healthy), found[0])
    first.healthy += left
