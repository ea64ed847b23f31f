"""Coarse, shared timers: one bucket per 10 ms, one timer of the loop for the earliest bucket.

A request must not cost a timer of its own. Something that can time out is entered once and keeps an attribute
`deadline` that moves freely; when its bucket comes and the deadline has moved on, it is entered anew. Nothing is
entered further ahead than HORIZON: so a busy connection enters the wheel every few seconds, not once per request, and
one that has no deadline any more is let go as soon, whatever its timeout was. What ends for good says so (`forget`):
under a thousand short connections a second, a few seconds of them, with all that they hold, would be much.
"""

from __future__ import annotations

import asyncio
import logging
from heapq import heappop, heappush
from time import monotonic
from typing import Final

log = logging.getLogger("proxy.worker.timers")

_PER_SECOND: Final = 100
_FAR: Final = 1.0
_COARSE: Final = 10
"""What is further away than so many seconds is entered too early by up to so many buckets, and then once more: else a
steady stream of new connections would fill, and later turn, a hundred buckets a second."""
HORIZON: Final = 5.0
"""Seconds: how far ahead something is entered, and how long the wheel keeps what has no deadline any more."""


class Timed:
    """The base of what can time out. `deadline`: monotonic seconds, 0 for none. `entered`: the wheel's own, when its
    bucket begins; 0 when in none."""

    __slots__ = ("deadline", "entered")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.entered = 0.0

    def on_deadline(self, now: float) -> None:
        """The deadline has passed; it is 0 again. May set a new one."""
        raise NotImplementedError


class Timers:
    """The wheel of one worker."""

    __slots__ = ("_armed", "_buckets", "_handle", "_loop", "_order")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, dict[Timed, None]] = {}  # each bucket is a set in order
        self._order: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0

    def watch(self, item: Timed) -> None:
        """Call after setting item.deadline. Cheap when the item is already in the wheel at or before it."""
        deadline = item.deadline
        if deadline and (not item.entered or deadline < item.entered):
            now = monotonic()
            tick = int(min(deadline, now + HORIZON) * _PER_SECOND) + 1
            if deadline - now > _FAR:
                tick -= tick % _COARSE
            self._enter(item, tick)

    def forget(self, item: Timed) -> None:
        """The item has ended: no deadline, and no trace of it in the wheel."""
        item.deadline = 0.0
        if item.entered:
            self._remove(item)

    def _remove(self, item: Timed) -> None:
        # Its bucket may be left empty; its turn comes all the same.
        del self._buckets[round(item.entered * _PER_SECOND) + 1][item]
        item.entered = 0.0

    def _enter(self, item: Timed, tick: int) -> None:
        if item.entered:  # too late
            self._remove(item)
        item.entered = (tick - 1) / _PER_SECOND
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {item: None}
            heappush(self._order, tick)
            if not self._armed or tick < self._armed:
                self._arm()
        else:
            bucket[item] = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._order:
            self._armed = self._order[0]
            # At least the loop's own resolution: a timer a hair too early would only be set again.
            self._handle = self._loop.call_later(max(0.001, self._armed / _PER_SECOND - monotonic()), self._turn)

    def _turn(self) -> None:
        self._armed = 0
        now = monotonic()
        tick = int(now * _PER_SECOND)
        due: list[Timed] = []
        while self._order and self._order[0] <= tick:
            for item in self._buckets.pop(heappop(self._order)):
                item.entered = 0.0
                due.append(item)
        # All are out before the first is called: what they enter belongs to a later turn.
        for item in due:
            if item.deadline and item.deadline <= now:
                item.deadline = 0.0
                try:
                    item.on_deadline(now)
                except Exception:
                    log.exception("a timeout could not be handled")
            self.watch(item)
        if not self._armed:
            self._arm()

    def close(self) -> None:
        """Forget everything."""
        if self._handle is not None:
            self._handle.cancel()
        self._armed = 0
        self._buckets.clear()
        self._order.clear()
