"""The figures that scenarios measure: their names, units, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """`scale` turns the stored SI value (seconds, bytes) into `unit`. `differences`: it is what is left after a
    subtraction, so ratios are of medians, since one turn's may be of almost nothing.
    """

    name: str
    title: str
    unit: str
    scale: float = 1.0
    digits: int = 1
    higher_is_better: bool = False
    differences: bool = False

    def shown(self, value: float) -> str:
        """The value with its unit."""
        return f"{value * self.scale:,.{self.digits}f} {self.unit}"


_US, _MB, _GB = 1e6, 1e-6, 1e-9

FIGURES: Final = {
    figure.name: figure
    for figure in (
        Figure("added_p50", "added at p50", "µs", _US, 0, differences=True),
        Figure("added_p99", "added at p99", "µs", _US, 0, differences=True),
        Figure("p50", "latency p50", "µs", _US, 0),
        Figure("p99", "latency p99", "µs", _US, 0),
        Figure("cpu", "CPU per request, slope between two rates", "µs", _US),
        Figure("cpu_low", "CPU per request at the lower rate, idle cost included", "µs", _US),
        Figure("cpu_high", "CPU per request at the higher rate, idle cost included", "µs", _US),
        Figure("cpu_saturated", "CPU per request at saturation", "µs", _US),
        Figure("cpu_idle", "CPU when idle, per second", "ms", 1e3, 2),
        Figure("bytes_per_cpu_second", "bytes per CPU-second", "GB", _GB, 2, higher_is_better=True),
        Figure("handshakes_per_cpu_second", "handshakes per CPU-second", "", 1, 0, higher_is_better=True),
        Figure("pss", "PSS", "MB", _MB),
        Figure("memory_alone", "memory as if alone on the machine", "MB", _MB),
        Figure("memory_loaded", "memory after load, as if alone", "MB", _MB),
        Figure("rate_saturated", "requests per second at saturation", "", 1, 0, higher_is_better=True),
    )
}
"""In the order in which they are shown."""
