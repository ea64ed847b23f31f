"""The way in of a connection: bytes become frames, and content goes to its stream (RFC 9113 §4 to §6.1, §6.9).

Any split of the same bytes reads the same. Content is passed on as it comes: a DATA frame need not be complete. A peer
that breaks a rule of one stream loses the stream, one that breaks a rule of the connection raises ConnectionFailed.
"""

from __future__ import annotations

from typing import Final

from proxy.config.http2 import Http2Options
from proxy.http.h2 import frames
from proxy.http.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PADDED,
    PROTOCOL_ERROR,
    SETTINGS,
    STREAM_CLOSED,
    ConnectionFailed,
)
from proxy.http.h2.guard import Guard
from proxy.http.h2.sender import Sender
from proxy.http.h2.stream import ANY_LENGTH, OPEN, Stream

_SMALL: Final = 1024


class Receiver(Sender):
    """The base of Connection. After `receive`, `ready` has the streams on which something happened, once each."""

    __slots__ = (
        "_block_stream",
        "_data",
        "_data_end",
        "_data_left",
        "_guard",
        "_need",
        "_options",
        "_pad_left",
        "_partial",
        "_resets",
        "_settings_seen",
        "_stuck",
        "_unreturned",
        "now",
        "ready",
        "receive_window",
    )

    def __init__(self, options: Http2Options) -> None:
        super().__init__(options)
        self._options = options
        self._guard = Guard(options)
        self.ready: list[Stream] = []
        self.now = 0.0
        self._settings_seen = False
        self._block_stream = 0  # whose field block is under way: nothing else may come in between
        # Streams that we reset lately: what the peer had sent on them before it knew is no fault (§5.4.2). As many as
        # may be reset at once, twice.
        self._resets: dict[int, None] = {}
        # What has arrived of something that is not complete, and how much it takes.
        self._partial = bytearray()
        self._need = 0
        # The DATA frame under way; `_data` is None when its stream is gone.
        self._data: Stream | None = None
        self._data_left = 0
        self._data_end = False
        self._pad_left = 0
        # The connection's window: what the peer may send, what is to be given back, what is in streams that are held.
        self.receive_window = frames.DEFAULT_WINDOW
        self._unreturned = 0
        self._stuck = 0

    # ---- the subclass's

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A complete frame other than DATA. Raises ConnectionFailed."""
        raise NotImplementedError

    def _idle(self, number: int) -> bool:
        """Whether the stream has never been opened (§5.1)."""
        raise NotImplementedError

    def _beyond(self, number: int) -> bool:
        """Whether the stream is not looked at because of our GOAWAY (§6.8)."""
        return False

    @property
    def unfinished(self) -> bool:
        """Whether a frame other than DATA, or a field block, has begun and is not complete."""
        return self._block_stream != 0 or len(self._partial) > 0

    @property
    def crowded(self) -> bool:
        """Whether streams that are held have so much of the connection's window that the others may soon stand still,
        too."""
        return 2 * self._stuck >= self._options.initial_connection_window_size

    # ---- the way in

    def receive(self, data: bytes, now: float) -> None:
        """Read what arrived. Raises ConnectionFailed; what came before it stands."""
        self.now = now
        if self._partial:
            partial = self._partial
            partial += data
            if len(partial) < self._need:
                return
            data = bytes(partial)
            self._partial = bytearray()
        self._read(data, 0)
        if self.flooded:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, self.flooded)

    def _read(self, data: bytes, at: int) -> None:
        size = len(data)
        while True:
            if self._data_left or self._pad_left:
                at = self._read_data(data, at, size)
                if self._data_left or self._pad_left:
                    return
            if size - at < 9:
                self._keep(data, at, 9)
                return
            length = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2]
            kind = data[at + 3]
            flags = data[at + 4]
            number = ((data[at + 5] & 127) << 24) | (data[at + 6] << 16) | (data[at + 7] << 8) | data[at + 8]
            self._check_frame(length, kind, flags, number)
            if kind == DATA:
                if flags & PADDED and length and size - at < 10:
                    self._keep(data, at, 10)
                    return
                at += 9
                pad = -1
                if flags & PADDED and length:
                    pad = data[at]
                    at += 1
                self._on_data(length, flags, number, pad)
                continue
            end = at + 9 + length
            if end > size:
                self._keep(data, at, 9 + length)
                return
            self._on_frame(kind, flags, number, data[at + 9 : end])
            at = end

    def _check_frame(self, length: int, kind: int, flags: int, number: int) -> None:
        if length > frames.DEFAULT_FRAME_SIZE:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "a frame larger than SETTINGS_MAX_FRAME_SIZE (RFC 9113 §4.2)")
        if self._block_stream and (kind != CONTINUATION or number != self._block_stream):
            raise ConnectionFailed(PROTOCOL_ERROR, "a frame inside of a field block (RFC 9113 §4.3)")
        if not self._settings_seen and (kind != SETTINGS or flags & ACK):
            raise ConnectionFailed(PROTOCOL_ERROR, "the first frame is not SETTINGS (RFC 9113 §3.4)")

    def _keep(self, data: bytes, at: int, need: int) -> None:
        self._need = need
        if at < len(data):
            self._partial += data[at:] if at else data

    # ---- DATA (§6.1)

    def _on_data(self, length: int, flags: int, number: int, pad: int) -> None:
        """A DATA frame begins. `pad`: its padding, or -1."""
        if not number:
            raise ConnectionFailed(PROTOCOL_ERROR, "DATA on stream 0 (RFC 9113 §6.1)")
        if flags & PADDED and length == 0:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame without the padding's length (RFC 9113 §6.1)")
        if pad >= length:
            raise ConnectionFailed(PROTOCOL_ERROR, "padding longer than its frame (RFC 9113 §6.1)")
        content = length - pad - 1
        end = flags & END_STREAM != 0
        if length > self.receive_window:
            raise ConnectionFailed(FLOW_CONTROL_ERROR, "more DATA than the connection's window (RFC 9113 §6.9)")
        self.receive_window -= length
        self._unreturned += length
        if self._unreturned >= self._options.initial_connection_window_size >> 1:
            self._return_window()
        if not content:
            self._guard.empty(end)
        else:
            self._guard.empties = 0
        stream = self.streams.get(number)
        if stream is None:
            self._on_closed(number, "DATA")
        else:
            stream = self._take_data(stream, length, content, end)
        self._data = stream
        self._data_left = content
        self._pad_left = pad if pad > 0 else 0
        self._data_end = end
        if not content and end and stream is not None:
            self._end(stream)

    def _take_data(self, stream: Stream, length: int, content: int, end: bool) -> Stream | None:
        """The stream, unless the frame ends it."""
        message = stream.message
        if message is None or message.done:
            if message is None:
                self._break(stream, PROTOCOL_ERROR, "DATA before a head (RFC 9113 §8.1)")
            else:
                self._break(stream, STREAM_CLOSED, "DATA after the end of the stream (RFC 9113 §5.1)")
            return None
        if length > stream.receive_window:
            self._break(stream, FLOW_CONTROL_ERROR, "more DATA than the stream's window (RFC 9113 §6.9)")
            return None
        stream.receive_window -= length
        stream.unreturned += length
        if stream.held:
            stream.stuck += length
            self._stuck += length
        if stream.left != ANY_LENGTH:
            stream.left -= content
            if stream.left < 0 or (end and stream.left):
                self._break(stream, PROTOCOL_ERROR, "content of another length than content-length (RFC 9113 §8.1.1)")
                return None
        return stream

    def _read_data(self, data: bytes, at: int, size: int) -> int:
        left, stream = self._data_left, self._data
        if left:
            end = at + left
            if end > size:
                end = size
            if end > at:
                self._data_left = left = left - (end - at)
                if stream is not None and stream.message is not None and stream.reset == OPEN:
                    chunk = data[at:end] if at or end < size else data
                    body = stream.message.body
                    if body and len(chunk) < _SMALL and len(body[-1]) < _SMALL:
                        body[-1] += chunk  # many tiny frames must not become as many objects
                    else:
                        body.append(chunk)
                    if not stream.queued:
                        self._mark(stream)
                at = end
            if left:
                return at
            if self._data_end and stream is not None:
                self._end(stream)
        if self._pad_left:
            skip = min(self._pad_left, size - at)
            self._pad_left -= skip
            at += skip
        return at

    def _end(self, stream: Stream) -> None:
        """The peer's side of the stream is closed."""
        message = stream.message
        if message is None or stream.reset != OPEN:
            return
        message.done = True
        self._mark(stream)
        if stream.ended and not stream.pending_end:
            self._forget(stream)

    def _mark(self, stream: Stream) -> None:
        if not stream.queued:
            stream.queued = True
            self.ready.append(stream)

    def _break(self, stream: Stream, code: int, text: str) -> None:
        """A stream error (§5.4.2): the stream ends, and its owner is told."""
        if stream.reset == OPEN:
            self._forget(stream)
            stream.reset = code
            stream.broken = text
            self._remember(stream.id)
            self._control(frames.rst_stream(stream.id, code))
            self._mark(stream)
            self._on_break(stream)

    def _on_break(self, stream: Stream) -> None:
        """The peer broke a stream. Raises ConnectionFailed."""

    def _refuse(self, number: int, code: int) -> None:
        """A stream error of a stream that nobody has seen yet."""
        self._remember(number)
        self._control(frames.rst_stream(number, code))

    def _remember(self, number: int) -> None:
        resets = self._resets
        resets[number] = None
        if len(resets) > 2 * self._options.max_concurrent_streams:
            del resets[next(iter(resets))]

    def reset(self, stream: Stream, code: int) -> None:
        if stream.reset == OPEN and stream.id in self.streams:
            self._remember(stream.id)
            super().reset(stream, code)

    def _forget(self, stream: Stream) -> None:
        super()._forget(stream)
        if stream.stuck:
            self._unstick(stream)

    def _unstick(self, stream: Stream) -> None:
        """What is held of the stream counts no more against the connection's window."""
        self._stuck -= stream.stuck
        stream.stuck = 0
        if self._unreturned >= self._options.initial_connection_window_size >> 1:
            self._return_window()

    def _on_closed(self, number: int, what: str) -> None:
        """A frame on a stream that is not there."""
        if self._idle(number):
            raise ConnectionFailed(PROTOCOL_ERROR, f"{what} on an idle stream (RFC 9113 §5.1)")
        if number not in self._resets and not self._beyond(number):
            raise ConnectionFailed(STREAM_CLOSED, f"{what} on a closed stream (RFC 9113 §5.1)")

    # ---- windows (§6.9)

    def hold(self, stream: Stream) -> None:
        """Whoever takes on what comes on the stream is full: its window is not given back for now."""
        stream.held = True

    def release(self, stream: Stream) -> None:
        """It is taken on again."""
        if stream.held:
            stream.held = False
            self._unstick(stream)
            self.give_back(stream)

    def give_back(self, stream: Stream) -> None:
        """What came on the stream has been taken on: the peer may send as much again."""
        if stream.unreturned >= self._options.initial_stream_window_size >> 1 and not stream.held:
            message = stream.message
            if message is not None and not message.done and stream.reset == OPEN:
                self.out.append(frames.window_update(stream.id, stream.unreturned))
                stream.receive_window += stream.unreturned
                stream.unreturned = 0

    def _return_window(self) -> None:
        """The connection's window is given back as it is used, so that a stream that stands still holds up no other;
        but not while such streams hold as much as the window is large."""
        if self._stuck < self._options.initial_connection_window_size:
            self.out.append(frames.window_update(0, self._unreturned))
            self.receive_window += self._unreturned
            self._unreturned = 0
