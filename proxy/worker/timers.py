"""Coarse, shared timers: one bucket per 10 ms, one timer of the loop for the earliest bucket.

A request must not cost a timer of its own. Something that can time out is entered once and keeps an attribute
`deadline` that moves freely; when its bucket comes and the deadline has moved on, it is entered anew. So a busy
connection enters the wheel about once per timeout, not once per request.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from time import monotonic
from typing import Protocol

_PER_SECOND = 100


class Timed(Protocol):
    """`deadline`: monotonic seconds, 0 for none. `entered`: the wheel's own, 0 when not in it."""

    deadline: float
    entered: float

    def on_deadline(self, now: float) -> None:
        """The deadline has passed. May set a new one."""


class Timers:
    """The wheel of one worker."""

    __slots__ = ("_armed", "_buckets", "_handle", "_loop", "_order")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, list[Timed]] = {}
        self._order: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0

    def watch(self, item: Timed) -> None:
        """Call after setting item.deadline. Cheap when the item is already in the wheel at or before it."""
        deadline = item.deadline
        if deadline and (not item.entered or deadline < item.entered):
            item.entered = deadline
            self._enter(item, deadline)

    def _enter(self, item: Timed, deadline: float) -> None:
        tick = int(deadline * _PER_SECOND) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [item]
            heappush(self._order, tick)
            if self._handle is None or tick < self._armed:
                self._arm()
        else:
            bucket.append(item)

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._order:
            self._armed = self._order[0]
            self._handle = self._loop.call_later(max(0.0, self._armed / _PER_SECOND - monotonic()), self._turn)

    def _turn(self) -> None:
        self._handle = None
        now = monotonic()
        tick = int(now * _PER_SECOND)
        while self._order and self._order[0] <= tick:
            due = self._order[0]
            heappop(self._order)
            for item in self._buckets.pop(due):
                if not item.entered or int(item.entered * _PER_SECOND) + 1 != due:
                    continue  # entered again at an earlier time, or gone
                item.entered = 0.0
                if item.deadline and item.deadline <= now:
                    item.on_deadline(now)
                self.watch(item)
        if self._handle is None:
            self._arm()

    def close(self) -> None:
        """Forget everything."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._buckets.clear()
        self._order.clear()
