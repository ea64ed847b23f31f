"""How much retrying in total? A share of the requests, and a floor for those who have few."""

from __future__ import annotations

from typing import Final

PRICE: Final = 5
"""Requests for each retry: 20 %."""
FLOOR: Final = 3.0
"""Retries a second, whatever the requests."""
_SECONDS: Final = 10.0
"""How long what is not used can be saved up: so much of the floor, and as much of the share."""
_SAVED: Final = FLOOR * _SECONDS
_MOST: Final = int(_SAVED) * PRICE


class Budget:
    """The budget of one cluster. In any time of t seconds with n requests at most n / PRICE + FLOOR * t retries are
    granted, and what had been saved up: twice FLOOR * 10 at most.

    Times are monotonic seconds."""

    __slots__ = ("_floor", "_share", "_since")

    def __init__(self, now: float) -> None:
        self._floor = _SAVED
        self._share = 0  # requests
        self._since = now

    def deposit(self) -> None:
        """A request begins."""
        if self._share < _MOST:
            self._share += 1

    def withdraw(self, now: float) -> bool:
        """Whether one may be tried again; it is counted then."""
        if self._share >= PRICE:
            self._share -= PRICE
            return True
        self._floor = min(_SAVED, self._floor + (now - self._since) * FLOOR)
        self._since = now
        if self._floor >= 1.0:
            self._floor -= 1.0
            return True
        return False
