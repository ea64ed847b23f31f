"""One write per connection and turn of the loop: what a turn's events add to connections goes out at its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.worker.h2.link import Link

log = logging.getLogger("proxy.worker.h2")


class Flusher:
    """That of one worker."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Link] = []

    def add(self, link: Link) -> None:
        """Write the connection's output at the end of this turn."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(link)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for link in waiting:
            try:
                link.flush()
            except Exception:
                log.exception("a connection could not be written")
                link.abort()
