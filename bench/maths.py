"""The few statistics that the reports need. Pure; all of them raise ValueError for an empty input."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What is shown of repeated measurements of one thing: the median, and the range that they span."""

    median: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Median, least and greatest."""
    if not values:
        raise ValueError("no values")
    return Summary(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values: the least one that `share` (0 to 1) of them do not exceed."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The least-squares line through (x, y) points: (slope, intercept).

    Raises ValueError when all x are the same.
    """
    if not points:
        raise ValueError("no values")
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    if square == 0:
        raise ValueError("a slope needs two different rates")
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points) / square
    return rise, mean_y - rise * mean_x


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, turn by turn. Raises ValueError when the lengths differ or one of theirs is not positive."""
    if not ours:
        raise ValueError("no values")
    if any(value <= 0 for value in theirs):
        raise ValueError("a ratio to nothing")
    return [a / b for a, b in zip(ours, theirs, strict=True)]
