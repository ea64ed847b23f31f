"""Load for the HTTP scenarios, whatever the protocol: at a fixed rate, at saturation, and open-loop latency."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench import tools
from bench.errors import NotSent
from bench.generator import Generator, Window
from bench.machine import K6, WRK
from bench.maths import percentile
from bench.tools import Latency

CONNECTIONS = 32
WARM = 0.5
"""Seconds of an open-loop run that do not count: connections are made, caches filled."""

ATTEMPTS = 5
"""Of an open-loop window. A stall of the whole machine spoils one; a proxy that is too slow spoils all."""


class Load(Protocol):
    """Raises RequestsFailed from every method when a request failed."""

    rates: tuple[int, ...]
    """Requests per second of the CPU windows: at least two, all well below what every proxy can do on one core. Where
    requests begin to queue, they share wake-ups, and a slope says too little."""

    def fixed(self, port: int) -> FixedRate:
        """Connect for windows at fixed rates."""

    def saturate(self, port: int, seconds: float) -> int:
        """As many requests as come back; how many."""

    def latency(self, port: int, rate: int, seconds: float) -> Latency:
        """Open loop."""

    def about(self) -> str:
        """Which programs make the load, for the report."""


def attempts(window: Callable[[], Latency]) -> Latency:
    """An open-loop window, again when it could not keep to its schedule. Raises RequestsFailed."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(NotSent):
            return window()
    return window()


class FixedRate(Protocol):
    """An open set of connections; a context manager."""

    def __enter__(self) -> FixedRate: ...
    def __exit__(self, *_: object) -> None: ...
    def run(self, seconds: float, rate: float | None = None) -> Window:
        """One window."""


class Http1:
    """GETs on keep-alive connections."""

    rates: tuple[int, ...] = (500, 2000)

    def __init__(self, directory: Path) -> None:
        """`directory` is for reports of the tools."""
        self._directory = directory
        self._wrk, self._k6 = WRK.path(), K6.path()

    def fixed(self, port: int) -> FixedRate:
        return Generator(port, CONNECTIONS)

    def saturate(self, port: int, seconds: float) -> int:
        if self._wrk is not None:
            return tools.wrk(self._wrk, port, CONNECTIONS, seconds)
        with Generator(port, CONNECTIONS) as generator:
            return generator.run(seconds).requests

    def latency(self, port: int, rate: int, seconds: float) -> Latency:
        k6 = self._k6
        if k6 is not None:
            return attempts(lambda: tools.k6(k6, port, rate, WARM, seconds, self._directory))
        with Generator(port, CONNECTIONS) as generator:
            generator.run(WARM, rate)
            ordered = sorted(generator.run(seconds, rate).latencies)
        return Latency(percentile(ordered, 0.5), percentile(ordered, 0.99), len(ordered))

    def about(self) -> str:
        saturation = "wrk" if self._wrk else "Pillion's own generator"
        latency = "k6 (constant arrival rate)" if self._k6 else "Pillion's own generator (intended send times)"
        return f"fixed rates by Pillion's own generator, saturation by {saturation}, latency by {latency}"
