"""The way out of a connection: frames of heads, data and control, within the peer's windows.

What is written collects in `out` until the owner takes it, once per turn. Data that no window has room for waits in its
stream, which is `choked` until all of it is written; connections share their window between streams in turns.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.config.http2 import Http2Options
from proxy.http.h2 import frames
from proxy.http.h2.encoder import Encoder
from proxy.http.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    frame_head,
)
from proxy.http.h2.stream import OPEN, Stream
from proxy.http.headers import Headers

OUT_LIMIT: Final = 256 * 1024
"""Bytes of data that are made into frames before what there is of them has been written."""
_TURN: Final = 64 * 1024
"""Bytes that one stream may send before it is another's turn."""
_ALL: Final = 2**31
_MAX_TABLE: Final = 4096
"""What is kept for the peer's decoder, whatever it offers (RFC 7541 §4.2)."""
_VIEW: Final = 4096
"""Parts of chunks from this size on are not copied before they are written."""


class Sender:
    """The base of Connection. `stalled`: the transport takes nothing, so that no data goes out; the owner sets it.
    `flooded`: more frames wait for the peer than may; says which. The connection must end then."""

    __slots__ = (
        "_controls",
        "_frames",
        "_max_controls",
        "_max_frames",
        "_out_size",
        "_waiting",
        "data_frames",
        "drained",
        "encoder",
        "flooded",
        "out",
        "peer_frame_size",
        "peer_window",
        "send_window",
        "stalled",
        "streams",
    )

    def __init__(self, options: Http2Options) -> None:
        self.encoder = Encoder(_MAX_TABLE)
        self.out: list[Any] = []
        self._out_size = 0  # of data
        self.streams: dict[int, Stream] = {}
        self.send_window = frames.DEFAULT_WINDOW
        self.peer_window = frames.DEFAULT_WINDOW  # of each new stream
        self.peer_frame_size = frames.DEFAULT_FRAME_SIZE
        self.stalled = False
        self.drained: list[Stream] = []
        self.data_frames = 0
        self._waiting: dict[Stream, None] = {}  # with data, and with room in their own windows
        self._max_controls = options.max_outbound_control_frames
        self._max_frames = options.max_outbound_frames
        self.flooded = ""
        self._controls = 0  # while stalled
        self._frames = 0

    # ---- what the owner takes

    def take(self) -> bytes:
        """All that is to be written now."""
        out, self.out = self.out, []
        self._out_size = 0
        data: bytes = out[0] if len(out) == 1 else b"".join(out)
        return data

    def go_on(self) -> None:
        """There is room again: after `take`, or because the transport is stalled no more."""
        self._controls = self._frames = 0
        if self._waiting:
            self._share()

    # ---- heads and data

    def send_head(self, stream: Stream, fields: list[Any], sensitive: list[bytes], end: bool) -> None:
        """A head or a trailer section. `fields` are (name, value) pairs, pseudo-header fields first."""
        block = self.encoder.encode(fields, sensitive)
        flags = END_STREAM if end else 0
        limit = self.peer_frame_size
        if self.stalled:
            self._count_frame()
        if len(block) <= limit:
            self.out.append(frame_head(len(block), HEADERS, flags | END_HEADERS, stream.id))
            self.out.append(block)
        else:
            self.out.append(frame_head(limit, HEADERS, flags, stream.id))
            self.out.append(block[:limit])
            at = limit
            while at < len(block):
                part = block[at : at + limit]
                at += limit
                flags = END_HEADERS if at >= len(block) else 0
                self.out.append(frame_head(len(part), CONTINUATION, flags, stream.id))
                self.out.append(part)
        if end:
            self._ended(stream)

    def send(self, stream: Stream, chunks: list[bytes], end: bool, trailers: Headers, sensitive: list[bytes]) -> None:
        """More of the content, or its end. What no window has room for makes the stream `choked`."""
        if stream.reset != OPEN or stream.ended:
            return
        size = 0
        for chunk in chunks:
            size += len(chunk)
        if (
            stream.pending_size
            or size > stream.send_window
            or size > self.send_window
            or size > self.peer_frame_size
            or self.stalled
            or self._out_size > OUT_LIMIT
        ):
            stream.ended = end
            stream.sensitive = sensitive
            self._queue(stream, chunks, size, end, trailers)
            return
        last = end and not trailers
        if size or last:
            self.out.append(frame_head(size, DATA, END_STREAM if last else 0, stream.id))
            if size:
                self.out += chunks
                stream.send_window -= size
                self.send_window -= size
                self._out_size += size
                self.data_frames += 1
        if end:
            if trailers:
                self.send_head(stream, trailers, sensitive, True)
            else:
                self._ended(stream)

    def _queue(self, stream: Stream, chunks: list[bytes], size: int, end: bool, trailers: Headers) -> None:
        if size:
            stream.pending += chunks
            stream.pending_size += size
        if end:
            stream.pending_end = True
            stream.trailers = trailers
        if not stream.pending_size:
            self._finish(stream)
            return
        self._pump(stream, _ALL)
        if stream.pending_size:
            stream.choked = True
        else:
            self._unchoke(stream)

    def _pump(self, stream: Stream, turn: int) -> None:
        """Send what the windows have room for, at most `turn` bytes."""
        size = stream.pending_size
        room = min(stream.send_window, self.send_window, OUT_LIMIT - self._out_size, turn)
        if room > 0 and not self.stalled:
            pending = stream.pending
            whole = pending[0] if len(pending) == 1 else b"".join(pending)
            take = min(room, size)
            self._send_parts(stream, whole, take)
            stream.send_window -= take
            self.send_window -= take
            self._out_size += take
            stream.pending_size = size = size - take
            if size:
                stream.pending = [whole[take:] if size < _VIEW else memoryview(whole)[take:]]
        if size:
            if stream.send_window > 0:
                self._waiting[stream] = None
            else:
                self._waiting.pop(stream, None)
            return
        stream.pending = []
        self._waiting.pop(stream, None)
        if stream.pending_end:
            self._finish(stream)

    def _send_parts(self, stream: Stream, whole: Any, size: int) -> None:
        """The first `size` bytes as frames."""
        limit, last = self.peer_frame_size, stream.pending_end and not stream.trailers and size == len(whole)
        if size > limit:
            whole = memoryview(whole)
        at = 0
        while at < size:
            end = min(at + limit, size)
            part = whole if end - at == len(whole) else whole[at:end]
            self.out.append(frame_head(end - at, DATA, END_STREAM if last and end == size else 0, stream.id))
            self.out.append(part)
            self.data_frames += 1
            at = end
        if last:
            stream.pending_end = False
            self._ended(stream)

    def _finish(self, stream: Stream) -> None:
        """All of the content is out; its end is not."""
        stream.pending_end = False
        if self.stalled:
            self._count_frame()
        if stream.trailers:
            self.send_head(stream, stream.trailers, stream.sensitive, True)
        else:
            self.out.append(frame_head(0, DATA, END_STREAM, stream.id))
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        """Our side of the stream is closed."""
        stream.ended = True
        message = stream.message
        if message is not None and message.done:
            self._forget(stream)

    def _share(self) -> None:
        """The connection's window, or the transport, has room: the waiting streams send in turns."""
        waiting = self._waiting
        while waiting and self.send_window > 0 and not self.stalled and self._out_size < OUT_LIMIT:
            stream = next(iter(waiting))
            del waiting[stream]
            self._pump(stream, _TURN)
            if not stream.pending_size:
                self._unchoke(stream)

    def _widened(self, stream: Stream) -> None:
        """The stream's own window has grown."""
        if stream.pending_size and stream.send_window > 0:
            self._pump(stream, _TURN)
            if not stream.pending_size:
                self._unchoke(stream)

    def _unchoke(self, stream: Stream) -> None:
        if stream.choked:
            stream.choked = False
            self.drained.append(stream)

    # ---- control frames

    def reset(self, stream: Stream, code: int) -> None:
        """End the stream at once: RST_STREAM, if it is not closed yet."""
        if stream.reset == OPEN and stream.id in self.streams:
            stream.reset = code
            self._forget(stream)
            self._control(frames.rst_stream(stream.id, code))

    def _forget(self, stream: Stream) -> None:
        """The stream is closed."""
        self.streams.pop(stream.id, None)
        if stream.pending_size:
            self._waiting.pop(stream, None)
            stream.pending = []
            stream.pending_size = 0
        stream.pending_end = False

    def _control(self, frame: bytes) -> None:
        """A frame that the peer made us send. A peer that makes us send them and does not read is cut off."""
        self.out.append(frame)
        if self.stalled:
            self._controls += 1
            if self._controls > self._max_controls:
                self.flooded = "control frames are asked for and not read"
            self._count_frame()

    def _count_frame(self) -> None:
        self._frames += 1
        if self._frames > self._max_frames:
            self.flooded = "frames are asked for and not read"
