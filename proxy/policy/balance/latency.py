"""How long an endpoint's answers take: what peak EWMA compares."""

from __future__ import annotations

from math import exp

from proxy.config.balance import LoadBalancing


class Latency:
    """The average of one endpoint, in seconds; `at` is when it was last heard of (monotonic), 0: never."""

    __slots__ = ("at", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.at = 0.0

    def answered(self, seconds: float, now: float, config: LoadBalancing) -> None:
        """An answer took so long."""
        average = self.estimate(now, config)
        if not self.at or seconds >= average:
            self.seconds = seconds
        else:
            weight = exp((self.at - now) / config.ewma_decay_time)
            self.seconds = self.seconds * weight + seconds * (1.0 - weight)
        self.at = now

    def failed(self, seconds: float, now: float, config: LoadBalancing) -> None:
        """After so long there was an error instead. That is never good news, or who refuses fastest got the most."""
        if seconds >= self.estimate(now, config):
            self.seconds = seconds
            self.at = now

    def estimate(self, now: float, config: LoadBalancing) -> float:
        """The average as it counts now."""
        if not self.at:
            return config.ewma_default_rtt
        return self.seconds * exp((self.at - now) / config.ewma_decay_time)
