"""Outlier detection (envoy.config.cluster.v3.OutlierDetection): which host behaves so much worse than it should that it
gets no requests for a while.

Pure: `now` is monotonic seconds, `draw` gives numbers in [0, 1). What is counted of a host is its Health; a Detector is
the configuration, and knows no host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Final

from proxy.config.cluster import OutlierDetection

CONSECUTIVE_5XX: Final = "consecutive_5xx"
CONSECUTIVE_GATEWAY: Final = "consecutive_gateway_failure"
CONSECUTIVE_LOCAL: Final = "consecutive_local_origin_failure"
SUCCESS_RATE: Final = "success_rate"
LOCAL_SUCCESS_RATE: Final = "local_origin_success_rate"
FAILURE_PERCENTAGE: Final = "failure_percentage"
LOCAL_FAILURE_PERCENTAGE: Final = "local_origin_failure_percentage"

DETECTORS: Final = (
    CONSECUTIVE_5XX,
    CONSECUTIVE_GATEWAY,
    CONSECUTIVE_LOCAL,
    SUCCESS_RATE,
    LOCAL_SUCCESS_RATE,
    FAILURE_PERCENTAGE,
    LOCAL_FAILURE_PERCENTAGE,
)
"""The detectors' names, as metrics and logs have them."""

_NOTHING: Final[tuple[str, ...]] = ()


class Health:
    """What is remembered of one host. `ejected_until` is monotonic seconds; 0: not ejected. `backoff` is what the base
    ejection time is multiplied with. Requests are those of the interval under way; `local_` ones are counted by
    connections (split_external_local_origin_errors)."""

    __slots__ = (
        "backoff",
        "consecutive_5xx",
        "consecutive_gateway",
        "consecutive_local",
        "ejected_until",
        "failures",
        "local_failures",
        "local_requests",
        "requests",
        "returned",
    )

    def __init__(self) -> None:
        self.consecutive_5xx = 0
        self.consecutive_gateway = 0
        self.consecutive_local = 0
        self.requests = 0
        self.failures = 0
        self.local_requests = 0
        self.local_failures = 0
        self.backoff = 0
        self.ejected_until = 0.0
        self.returned = False  # in the interval under way


class Detector:
    """What to count, and when it is too much. The methods that count return the names of the detectors that strike."""

    __slots__ = ("_5xx", "_gateway", "_local", "_split", "config", "enforcing")

    def __init__(self, config: OutlierDetection) -> None:
        self.config = config
        self._5xx = config.consecutive_5xx
        self._gateway = config.consecutive_gateway_failure
        self._local = config.consecutive_local_origin_failure
        self._split = config.split_external_local_origin_errors
        self.enforcing: dict[str, int] = {
            CONSECUTIVE_5XX: config.enforcing_consecutive_5xx,
            CONSECUTIVE_GATEWAY: config.enforcing_consecutive_gateway_failure,
            CONSECUTIVE_LOCAL: config.enforcing_consecutive_local_origin_failure,
            SUCCESS_RATE: config.enforcing_success_rate,
            LOCAL_SUCCESS_RATE: config.enforcing_local_origin_success_rate,
            FAILURE_PERCENTAGE: config.enforcing_failure_percentage,
            LOCAL_FAILURE_PERCENTAGE: config.enforcing_failure_percentage_local_origin,
        }

    def answered(self, health: Health, status: int) -> tuple[str, ...]:
        """The host answered with this status of HTTP."""
        if self._split:
            health.local_requests += 1
            health.consecutive_local = 0
        health.requests += 1
        if status < 500:
            health.consecutive_5xx = 0
            health.consecutive_gateway = 0
            return _NOTHING
        health.failures += 1
        found = _NOTHING
        if 502 <= status <= 504:
            health.consecutive_gateway += 1
            if 0 < self._gateway <= health.consecutive_gateway:
                health.consecutive_gateway = 0
                found = (CONSECUTIVE_GATEWAY,)
        else:
            health.consecutive_gateway = 0
        health.consecutive_5xx += 1
        if 0 < self._5xx <= health.consecutive_5xx:
            health.consecutive_5xx = 0
            found = (*found, CONSECUTIVE_5XX)
        return found

    def failed(self, health: Health, status: int) -> tuple[str, ...]:
        """No answer came: no connection, a reset, too late. `status` stands for it where that is not counted apart."""
        if not self._split:
            return self.answered(health, status)
        health.local_requests += 1
        health.local_failures += 1
        health.consecutive_local += 1
        if 0 < self._local <= health.consecutive_local:
            health.consecutive_local = 0
            return (CONSECUTIVE_LOCAL,)
        return _NOTHING

    def connected(self, health: Health) -> None:
        """A connection was made, and what goes over it is no business of ours."""
        if self._split:
            health.local_requests += 1
            health.consecutive_local = 0
        else:
            self.answered(health, 200)

    def sweep(self, hosts: Sequence[Health]) -> list[tuple[Health, str]]:
        """The end of an interval: who is worse than the others, by which detector. Counting begins again, and the
        ejection time of whoever has been in service all the time falls by a step."""
        found = self._compare(hosts, False)
        if self._split:
            found += self._compare(hosts, True)
        for health in hosts:
            health.requests = health.failures = 0
            health.local_requests = health.local_failures = 0
            if health.ejected_until:
                continue
            if health.returned:
                health.returned = False
            elif health.backoff:
                health.backoff -= 1
        return found

    def _compare(self, hosts: Sequence[Health], local: bool) -> list[tuple[Health, str]]:
        """Both detectors by rates, of answers or of connections (`local`)."""
        config = self.config
        by_rate: list[tuple[float, Health]] = []
        by_percentage: list[tuple[float, Health]] = []
        for health in hosts:
            requests = health.local_requests if local else health.requests
            if health.ejected_until or not requests:
                continue
            failures = health.local_failures if local else health.failures
            rate = 100.0 * (requests - failures) / requests
            if requests >= config.success_rate_request_volume:
                by_rate.append((rate, health))
            if requests >= config.failure_percentage_request_volume:
                by_percentage.append((rate, health))
        found: list[tuple[Health, str]] = []
        if by_rate and len(by_rate) >= config.success_rate_minimum_hosts:
            least = least_success_rate([rate for rate, _ in by_rate], config.success_rate_stdev_factor / 1000.0)
            kind = LOCAL_SUCCESS_RATE if local else SUCCESS_RATE
            found += [(health, kind) for rate, health in by_rate if rate < least]
        if by_percentage and len(by_percentage) >= config.failure_percentage_minimum_hosts:
            threshold = config.failure_percentage_threshold
            kind = LOCAL_FAILURE_PERCENTAGE if local else FAILURE_PERCENTAGE
            found += [(health, kind) for rate, health in by_percentage if 100.0 - rate >= threshold]
        return found

    def enforces(self, kind: str, draw: Callable[[], float]) -> bool:
        """Whether this time the detector's finding has a consequence (the enforcing_* percentages)."""
        percent = self.enforcing[kind]
        return percent >= 100 or (percent > 0 and draw() * 100 < percent)

    def may_eject(self, ejected: int, total: int, serving: int) -> bool:
        """Whether one more of `total` hosts may go, when `ejected` are out and `serving` take requests: within
        max_ejection_percent, or the first with always_eject_one_host; and never the last that serves."""
        if serving <= 1:
            return False
        if ejected == 0 and self.config.always_eject_one_host:
            return True
        return (ejected + 1) * 100 <= self.config.max_ejection_percent * total

    def eject(self, health: Health, now: float, draw: Callable[[], float]) -> float:
        """Take the host out. Returns when it comes back: the time grows with each ejection, within
        max_ejection_time, to which the jitter is added."""
        config = self.config
        base, most, jitter = config.base_ejection_time, config.max_ejection_time, config.max_ejection_time_jitter
        if base * health.backoff < most + base:
            health.backoff += 1
        health.ejected_until = now + min(base * health.backoff, most) + (draw() * jitter if jitter else 0.0)
        return health.ejected_until


def least_success_rate(rates: Sequence[float], factor: float) -> float:
    """The success rate below which a host is an outlier: the mean less `factor` standard deviations."""
    mean = sum(rates) / len(rates)
    variance = sum([(rate - mean) ** 2 for rate in rates]) / len(rates)
    return mean - factor * sqrt(variance)


def restore(health: Health) -> None:
    """The host is back in service; its failures in a row are forgotten, its ejection time is not."""
    health.ejected_until = 0.0
    health.returned = True
    health.consecutive_5xx = health.consecutive_gateway = health.consecutive_local = 0
