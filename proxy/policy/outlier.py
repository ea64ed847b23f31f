"""Outlier detection by consecutive failures (envoy.config.cluster.v3.OutlierDetection)."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.config.cluster import OutlierDetection

_GATEWAY = frozenset((502, 503, 504))


class Health:
    """What is remembered of one endpoint. `ejected_until` is monotonic seconds; 0: in service."""

    __slots__ = ("consecutive_5xx", "consecutive_gateway", "ejected_until", "ejections")

    def __init__(self) -> None:
        self.consecutive_5xx = 0
        self.consecutive_gateway = 0
        self.ejections = 0
        self.ejected_until = 0.0


def failed(health: Health, status: int, config: OutlierDetection) -> bool:
    """Record a failure (a status of 500 or more; a failed connection counts as 503); True: it should be ejected."""
    health.consecutive_5xx += 1
    over = 0 < config.consecutive_5xx <= health.consecutive_5xx
    if status in _GATEWAY:
        health.consecutive_gateway += 1
        over = over or 0 < config.consecutive_gateway_failure <= health.consecutive_gateway
    else:
        health.consecutive_gateway = 0
    return over


def may_eject(ejected: int, total: int, config: OutlierDetection) -> bool:
    """Whether one more of `total` hosts may go: at most max_ejection_percent, but always at least one, and never
    the last host in service."""
    if ejected + 1 >= total:
        return False
    return ejected == 0 or (ejected + 1) * 100 <= config.max_ejection_percent * total


def eject(health: Health, now: float, config: OutlierDetection) -> float:
    """Take the host out; the time it stays out grows with each ejection. Returns when it comes back."""
    health.ejections += 1
    health.consecutive_5xx = health.consecutive_gateway = 0
    health.ejected_until = now + min(config.base_ejection_time * health.ejections, config.max_ejection_time)
    return health.ejected_until


def restore(hosts: Iterable[Health], now: float) -> bool:
    """Bring back every host whose time is over; True when any came back."""
    changed = False
    for health in hosts:
        if health.ejected_until and health.ejected_until <= now:
            health.ejected_until = 0.0
            changed = True
    return changed
