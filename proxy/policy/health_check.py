"""What the results of active health checks make of one endpoint, and when to check again (envoy.config.core.v3
.HealthCheck). Pure: chance is an argument."""

from __future__ import annotations

from collections.abc import Callable

from proxy.config.health_check import HealthCheck


class Checked:
    """One endpoint. It is out of service until its first check, which counts at once, whatever the thresholds are.
    `pending`: that has not come yet."""

    __slots__ = ("_changing", "_config", "_passed", "_row", "healthy", "pending")

    def __init__(self, config: HealthCheck) -> None:
        self._config = config
        self.healthy = False
        self.pending = True
        self._passed = False
        self._changing = False
        self._row = 0  # results in a row that speak against `healthy`

    def passed(self) -> bool:
        """A check passed. Returns whether something has changed."""
        self._passed = True
        before = self.healthy, self.pending
        self._changing = False
        if self.healthy:
            self._row = 0
        else:
            self._row += 1
            if self.pending or self._row >= self._config.healthy_threshold:
                self.healthy = True
                self._row = 0
            else:
                self._changing = True
        self.pending = False
        return before != (self.healthy, False)

    def failed(self, at_once: bool) -> bool:
        """A check failed. `at_once`: the endpoint itself says that it is ill, which needs no second opinion; what may
        be the network's fault has to reach unhealthy_threshold. Returns whether something has changed."""
        self._passed = False
        before = self.healthy, self.pending
        self._changing = False
        if not self.healthy:
            self._row = 0
        else:
            self._row += 1
            if at_once or self._row >= self._config.unhealthy_threshold:
                self.healthy = False
                self._row = 0
            else:
                self._changing = True
        self.pending = False
        return before != (self.healthy, False)

    def delay(self, traffic: bool, draw: Callable[[], float]) -> float:
        """Seconds until the next check, from the end of the last. `traffic`: the cluster has ever had a connection."""
        config = self._config
        base = config.interval
        if not traffic:
            base = config.no_traffic_interval
            if self._passed and config.no_traffic_healthy_interval is not None:
                base = config.no_traffic_healthy_interval
        elif self._passed:
            if self._changing and config.healthy_edge_interval is not None:
                base = config.healthy_edge_interval
        else:
            if config.unhealthy_interval is not None:
                base = config.unhealthy_interval
            if self._changing and config.unhealthy_edge_interval is not None:
                base = config.unhealthy_edge_interval
        jitter = base * config.interval_jitter_percent / 100 + config.interval_jitter
        return base + (draw() * jitter if jitter else 0.0)
