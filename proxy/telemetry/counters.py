"""Counters, gauges and histograms of one worker. The agent adds them up; see worker/channel.py, Stats."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

BUCKETS: Final[tuple[float, ...]] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds of every latency histogram; +Inf follows."""

MetricKey = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and its sorted (label, value) pairs."""

CLASSES: Final = ("0xx", "1xx", "2xx", "3xx", "4xx", "5xx")
"""The response_code_class labels, by status // 100; 0xx: the client went away before any status."""


def key(name: str, labels: dict[str, str]) -> MetricKey:
    """The identity of a series."""
    return name, tuple(sorted(labels.items()))


class Histogram:
    """Counts by bucket and the sum, both since the last take."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds


class Counters:
    """All series of one worker. `values[slot] += 1` is how the request path counts."""

    __slots__ = ("_gauges", "_gone", "_histograms", "_keys", "_slots", "values")

    def __init__(self) -> None:
        self.values: list[int] = []
        self._keys: list[MetricKey] = []
        self._slots: dict[MetricKey, int] = {}
        self._histograms: dict[MetricKey, Histogram] = {}
        self._gauges: dict[MetricKey, Callable[[], float]] = {}
        self._gone: list[MetricKey] = []

    def slot(self, name: str, **labels: str) -> int:
        """The index into `values` of this series; the same one whenever it is asked for again."""
        series = key(name, labels)
        slot = self._slots.get(series)
        if slot is None:
            slot = self._slots[series] = len(self.values)
            self.values.append(0)
            self._keys.append(series)
        return slot

    def by_class(self, name: str, **labels: str) -> tuple[int, ...]:
        """One slot per response class, to be indexed by status // 100; 600 to 999, which RFC 9110 §15 does not know
        and some send, count as 5xx."""
        slots = [self.slot(name, response_code_class=name_, **labels) for name_ in CLASSES]
        return (*slots, *slots[-1:] * 4)

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram of this series; the same one whenever it is asked for again."""
        return self._histograms.setdefault(key(name, labels), Histogram())

    def gauge(self, read: Callable[[], float], name: str, **labels: str) -> None:
        """Report `read()` with every take, until the gauge is replaced or dropped."""
        self._gauges[key(name, labels)] = read

    def drop_gauges(self, **labels: str) -> None:
        """Forget the gauges that carry all of these labels: what they measured is gone, and the next take says 0."""
        wanted = set(labels.items())
        for series in [series for series in self._gauges if wanted <= set(series[1])]:
            del self._gauges[series]
            self._gone.append(series)

    def take(
        self,
    ) -> tuple[
        tuple[tuple[MetricKey, int], ...],
        tuple[tuple[MetricKey, float], ...],
        tuple[tuple[MetricKey, tuple[int, ...], float], ...],
    ]:
        """(counters, gauges, histograms) since the last take; counting starts again from zero."""
        counters = []
        for slot, value in enumerate(self.values):
            if value:
                counters.append((self._keys[slot], value))
                self.values[slot] = 0
        histograms = []
        for series, histogram in self._histograms.items():
            if any(histogram.counts):
                histograms.append((series, tuple(histogram.counts), histogram.sum))
                histogram.counts[:] = [0] * len(histogram.counts)
                histogram.sum = 0.0
        # The zeros come first: what is there again under the same name has the last word.
        gauges = [(series, 0.0) for series in self._gone]
        self._gone.clear()
        gauges += [(series, float(read())) for series, read in self._gauges.items()]
        return tuple(counters), tuple(gauges), tuple(histograms)
