"""What a peer may make us do: counts of frames that cost us something and it nothing (RFC 9113 §10.5).

Going beyond a limit ends the connection with ENHANCE_YOUR_CALM. Limits come from Http2ProtocolOptions, whose names say
what they count; what it has no name for is derived from those.
"""

from __future__ import annotations

from typing import Final

from proxy.config.http2 import Http2Options
from proxy.http.h2.frames import ENHANCE_YOUR_CALM, ConnectionFailed

_WINDOW: Final = 1.0
"""Seconds over which rates are counted. A stream that its client resets before it is that old is a premature reset."""
_MIN_RESETS: Final = 100
_MAX_SETTINGS: Final = 64
"""Settings in one frame: there are eight, and a few that are there to be ignored."""
_MAX_CONTINUATIONS: Final = 64
_RESIZED: Final = 32
"""Windows that are changed at the cost of one control frame."""


class Guard:
    """The counts of one connection. Every method raises ConnectionFailed beyond its limit."""

    __slots__ = (
        "_controls",
        "_data_frames",
        "_late_resets",
        "_max_controls",
        "_max_empties",
        "_max_priorities",
        "_max_resets",
        "_priorities",
        "_resets",
        "_resets_since",
        "_since",
        "_updates",
        "_updates_per_data",
        "continuations",
        "empties",
        "opened",
        "opened_lately",
    )

    def __init__(self, options: Http2Options) -> None:
        self._max_controls = options.max_outbound_control_frames
        self._max_empties = options.max_consecutive_inbound_frames_with_empty_payload
        self._max_priorities = options.max_inbound_priority_frames_per_stream
        self._updates_per_data = options.max_inbound_window_update_frames_per_data_frame_sent
        self._max_resets = max(_MIN_RESETS, options.max_concurrent_streams)
        self._controls = 0
        self._data_frames = 0
        self._late_resets = 0
        self._since = 0.0
        self._resets = 0
        self._resets_since = 0.0
        self._priorities = 0
        self._updates = 0
        self.continuations = 0
        self.empties = 0
        self.opened = 0  # streams
        self.opened_lately = 0

    def control(self, now: float, weight: int = 1) -> None:
        """A frame that carries nothing on: PING, SETTINGS, an unknown one. As many a second as may wait unread."""
        if now - self._since >= _WINDOW:
            self._since = now
            self._controls = 0
        self._controls += weight
        if self._controls > self._max_controls:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "too many control frames in a second")

    def ping(self, now: float, data_frames: int) -> None:
        """PING, after so many DATA frames sent. Some clients measure the way with one per round trip, as long as data
        comes to them: those are for free."""
        if data_frames != self._data_frames:
            self._data_frames = data_frames
        else:
            self.control(now)

    def settings(self, now: float, count: int) -> None:
        """SETTINGS with so many of them."""
        if count > _MAX_SETTINGS:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, f"more than {_MAX_SETTINGS} settings in a frame")
        self.control(now, 1 + count)

    def resize(self, now: float, streams: int) -> None:
        """A setting that changes the window of so many streams, one by one."""
        self.control(now, streams // _RESIZED)

    def empty(self, end: bool) -> None:
        """A frame of a message without any of it. One that ends a message costs the peer a stream, and is no flood."""
        if end:
            self.empties = 0
            return
        self.empties += 1
        if self.empties > self._max_empties:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "too many frames in a row with nothing in them")

    def continuation(self, size: int, block: int, max_size: int) -> None:
        """CONTINUATION: `block` bytes of a field block so far."""
        if not size:
            self.empty(False)
        self.continuations += 1
        if block > 2 * max_size or self.continuations > _MAX_CONTINUATIONS:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "a field block that does not end")

    def priority(self) -> None:
        """PRIORITY."""
        self._priorities += 1
        if self._priorities > self._max_priorities * (1 + self.opened):
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "too many PRIORITY frames")

    def window_update(self, data_frames: int) -> None:
        """WINDOW_UPDATE, after so many DATA frames sent."""
        self._updates += 1
        if self._updates > 5 + 2 * (self.opened + self._updates_per_data * data_frames):
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")

    def late_reset(self) -> None:
        """RST_STREAM on a stream that is closed: gRPC's clients reset every call that is answered before they have said
        all, however many there are; each once."""
        self._late_resets += 1
        if self._late_resets > _MIN_RESETS + self.opened:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "more RST_STREAM frames than streams")

    def open(self) -> None:
        """A stream was opened."""
        self.opened += 1
        self.opened_lately += 1

    def premature(self, now: float, opened: float) -> None:
        """A stream was given up by who opened it, or could not be served at all. A flood of those is an attack
        (CVE-2023-44487); a client with that many requests that come to an end is not."""
        if now - opened >= _WINDOW:
            return
        if now - self._resets_since >= _WINDOW:
            self._resets_since = now
            self._resets = 0
            self.opened_lately = 0
        self._resets += 1
        if self._resets > self._max_resets and 2 * self._resets > self.opened_lately:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, "streams are opened and reset at once, again and again")
