"""What a connection of HTTP/2 does with its streams when something goes wrong in one of them."""

from __future__ import annotations

import asyncio

import pytest

from proxy.config.http2 import HTTP2_DEFAULTS
from proxy.http.h2 import frames
from proxy.http.h2.client import ClientConnection
from proxy.worker.h2.flusher import Flusher
from proxy.worker.h2.link import Link
from proxy.worker.timers import Timers


class _Owner:
    """Of a stream; `error` is raised when it is told of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told = 0
        self._error = error

    def on_stream(self) -> None:
        self.told += 1
        if self._error is not None:
            raise self._error


async def test_a_bug_in_one_stream_does_not_keep_the_others_from_what_came_for_them() -> None:
    loop, codec = asyncio.get_running_loop(), ClientConnection(HTTP2_DEFAULTS, 60 * 1024, 100)
    timers = Timers(loop)
    link = Link(codec, HTTP2_DEFAULTS, Flusher(loop), timers)
    owners = [_Owner(), _Owner(ValueError("a bug")), _Owner()]
    for owner in owners:
        codec.open(b"GET", b"", 0.0).owner = owner
    resets = b"".join(frames.rst_stream(number, frames.CANCEL) for number in (1, 3, 5))
    with pytest.raises(ValueError, match="a bug"):
        link.data_received(frames.settings([]) + resets)
    assert [owner.told for owner in owners] == [1, 1, 1]
    timers.close()
