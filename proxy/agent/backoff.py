"""How long to wait before the next attempt, when the control plane does not answer."""

from __future__ import annotations

import random


class Backoff:
    """Exponential with full jitter: the n-th delay is uniform in [0, min(limit, first * 2**n)] seconds."""

    def __init__(self, first: float = 0.5, limit: float = 5.0, rng: random.Random | None = None) -> None:
        self._first, self._limit = first, limit
        self._ceiling = first
        self._rng = rng or random.Random()

    def next(self) -> float:
        """The delay before the next attempt."""
        ceiling = self._ceiling
        self._ceiling = min(self._limit, ceiling * 2)
        return self._rng.uniform(0.0, ceiling)

    def reset(self) -> None:
        """An attempt succeeded: the sequence starts afresh."""
        self._ceiling = self._first
