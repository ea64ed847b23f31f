"""The server's side of a connection: blocks of fields are requests and their trailers."""

from __future__ import annotations

from typing import Final

from proxy.config.http2 import Http2Options
from proxy.http.h2 import frames
from proxy.http.h2.connection import Connection
from proxy.http.h2.frames import PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED, ConnectionFailed
from proxy.http.h2.messages import Malformed, read_request
from proxy.http.h2.stream import Stream
from proxy.http.heads import CHUNKED, Message, RequestHead, RequestMessage

_SKIPPED_KEPT: Final = 64
_LAST_CALL: Final = b"lastcall"
"""What the PING behind the first GOAWAY carries (RFC 9113 §6.8)."""


class ServerConnection(Connection):
    """The server's side. A new stream in `ready` has no owner yet, and a `request`: an empty one and `too_large` when
    its head is over the limits; none when it is malformed, and then the stream is reset and `broken`.

    `underscores`: a trailer whose name has one is kept."""

    __slots__ = ("_closing", "_last", "_preface", "_skipped", "_underscores")

    def __init__(self, options: Http2Options, max_size: int, max_count: int, underscores: bool) -> None:
        super().__init__(options, max_size, max_count)
        self._preface = frames.PREFACE
        self._last = 0  # the newest stream
        self._closing = frames.MAX_STREAM  # streams above it are not looked at
        self._underscores = underscores
        self._skipped: dict[int, None] = {}
        settings = [(frames.MAX_CONCURRENT_STREAMS, options.max_concurrent_streams)]
        if options.allow_connect:
            settings.append((frames.ENABLE_CONNECT_PROTOCOL, 1))
        self._greeting(settings)

    def receive(self, data: bytes, now: float) -> None:
        preface = self._preface
        if preface:
            size = len(preface)
            if data[:size] != preface[: len(data)]:
                raise ConnectionFailed(PROTOCOL_ERROR, "no HTTP/2 connection preface (RFC 9113 §3.4)")
            self._preface = preface[len(data) :]
            data = data[size:]
            if not data:
                return
        super().receive(data, now)

    def close(self, code: int, text: str) -> None:
        """GOAWAY for good: streams after the newest are not looked at."""
        if self._closing > self._last or code:
            self._closing = self._last
            self.out.append(frames.goaway(self._last, code, text))

    def last_call(self) -> None:
        """The first of two GOAWAYs (RFC 9113 §6.8): the client learns that it must go elsewhere, but what it has sent
        by then is served. When `pong` is `last_call_heard`, it has heard, and `close` is the second."""
        self.out.append(frames.goaway(frames.MAX_STREAM, frames.NO_ERROR, ""))
        self.out.append(frames.ping(_LAST_CALL, False))

    @property
    def last_call_heard(self) -> bool:
        """Whether the client has answered to `last_call`."""
        return self.pong == _LAST_CALL

    def _idle(self, number: int) -> bool:
        return not number & 1 or self._last < number <= self._closing

    def _beyond(self, number: int) -> bool:
        return number > self._closing

    def _on_setting(self, name: int, value: int) -> None:
        if name == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "a SETTINGS_ENABLE_PUSH out of range (RFC 9113 §6.5.2)")

    def _on_goaway(self, last: int, code: int) -> None:
        self.going_away = True  # it opens no more; what is under way is served

    def _on_reset(self, stream: Stream) -> None:
        self._guard.premature(self.now, stream.opened)

    def _on_break(self, stream: Stream) -> None:
        # A client can have us reset its streams just as well as it can itself (CVE-2025-8671).
        self._guard.premature(self.now, stream.opened)

    def _on_block(self, number: int, block: bytes, end: bool) -> None:
        fields = self._fields(block)
        stream = self.streams.get(number)
        if stream is not None:
            self._on_trailers(stream, fields, end, self._underscores)
            return
        if not number & 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "a client's stream with an even number (RFC 9113 §5.1.1)")
        if number <= self._last:
            if number in self._skipped:
                raise ConnectionFailed(PROTOCOL_ERROR, "a number below that of an older stream (RFC 9113 §5.1.1)")
            if number not in self._resets:
                raise ConnectionFailed(STREAM_CLOSED, "HEADERS on a closed stream (RFC 9113 §5.1)")
            return
        if number > self._closing:
            return
        if number > self._last + 2:
            self._skip(number - 2)
        self._last = number
        self._guard.open()
        if len(self.streams) >= self._options.max_concurrent_streams:
            self._guard.premature(self.now, self.now)
            self._refuse(number, REFUSED_STREAM)
            return
        stream = Stream(number, self.peer_window, self._new_window(), self.now)
        self.streams[number] = stream
        if self._decoder.overflow:
            stream.message = stream.request = RequestMessage(RequestHead(b"", b"", b"", []))
            stream.message.done = end
            stream.too_large = True
            self._mark(stream)
            return
        try:
            head = read_request(fields, self._options.allow_connect)
        except Malformed as error:
            self._break(stream, PROTOCOL_ERROR, str(error))
            return
        if self._decoder.sensitive:
            head.sensitive = self._decoder.sensitive
        stream.request = request = RequestMessage(head)
        stream.message = request
        if end:
            if head.length > 0:
                self._break(stream, PROTOCOL_ERROR, "content-length without content (RFC 9113 §8.1.1)")
                return
            head.length = 0
            request.done = True
        elif head.upgrade:
            # The request is whole; what comes now is the other protocol's and waits until that is agreed on.
            request.done = True
            stream.message = Message()
            self.hold(stream)
        elif head.length != CHUNKED:
            stream.left = head.length
        self._mark(stream)

    def _skip(self, number: int) -> None:
        """Streams up to `number` will never be opened. The last few are remembered, for a clear error."""
        for skipped in range(max(self._last + 2, number - 2 * _SKIPPED_KEPT), number + 2, 2):
            self._skipped[skipped | 1] = None
        while len(self._skipped) > _SKIPPED_KEPT:
            del self._skipped[next(iter(self._skipped))]

    def switch(self, stream: Stream) -> None:
        """The other protocol is agreed on: its bytes are the request's content."""
        request, waiting = stream.request, stream.message
        assert request is not None
        assert waiting is not None
        if waiting is not request:
            request.body = waiting.body
            request.done = waiting.done
            stream.message = request
            self.release(stream)
