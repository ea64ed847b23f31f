"""Durations as Gateway API writes them (GEP-2257): `250ms`, `2s`, `1m30s`, `1h`."""

from __future__ import annotations

import re

PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""GEP-2257's own pattern: at most four parts, at most five digits each."""

_DURATION = re.compile(PATTERN)
_PART = re.compile(r"([0-9]+)(h|ms|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def parse_duration(text: str) -> float:
    """The duration in seconds. Raises ValueError with what to write instead."""
    # `$` also matches before a final newline; fullmatch does not.
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write 250ms, 2s, 1m30s or 1h")
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text)) / 1000


def format_duration(seconds: float) -> str:
    """The shortest GEP-2257 text for a duration that parse_duration returned."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _MILLISECONDS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
