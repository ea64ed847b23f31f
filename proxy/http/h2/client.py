"""The client's side of a connection: blocks of fields are responses, informational ones, and their trailers."""

from __future__ import annotations

from typing import Any, Final

from proxy.config.http2 import Http2Options
from proxy.http.h2 import frames
from proxy.http.h2.connection import Connection
from proxy.http.h2.frames import ENHANCE_YOUR_CALM, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED, ConnectionFailed
from proxy.http.h2.messages import Malformed, read_response
from proxy.http.h2.stream import OPEN, Stream
from proxy.http.heads import CHUNKED, CONNECT, NO_UPGRADE, UNTIL_CLOSE, ResponseHead, ResponseMessage

_MAX_INTERIM: Final = 100
FIRST_STREAMS: Final = 100
"""Streams at once before the peer has said how many it takes (RFC 9113 §6.5.2)."""


class ClientConnection(Connection):
    """The client's side. A stream's message is a ResponseMessage, from the response's head on."""

    __slots__ = ("_next",)

    def __init__(self, options: Http2Options, max_size: int, max_count: int) -> None:
        super().__init__(options, max_size, max_count)
        self._next = 1
        self.peer_streams = FIRST_STREAMS
        self.out.append(frames.PREFACE)
        self._greeting([(frames.ENABLE_PUSH, 0)])

    @property
    def room(self) -> int:
        """How many streams may be opened now."""
        if self.going_away or self._next > frames.MAX_STREAM:
            return 0
        return min(self.peer_streams, self._options.max_concurrent_streams) - len(self.streams)

    @property
    def greeted(self) -> bool:
        """Whether the peer's SETTINGS have come."""
        return self._settings_seen

    def open(self, method: bytes, upgrade: bytes, now: float) -> Stream:
        """A new stream, for a request with `method` that asks for `upgrade`. There must be room for it."""
        number = self._next
        self._next = number + 2
        self._guard.open()
        stream = Stream(number, self.peer_window, self._new_window(), now)
        stream.method = method
        stream.upgrade = upgrade
        self.streams[number] = stream
        return stream

    def close(self, code: int, text: str) -> None:
        """GOAWAY: nothing more will come from us."""
        self.out.append(frames.goaway(0, code, text))

    def _idle(self, number: int) -> bool:
        return number >= self._next or not number & 1

    def _on_setting(self, name: int, value: int) -> None:
        if name == frames.ENABLE_PUSH and value:
            raise ConnectionFailed(PROTOCOL_ERROR, "a server that sets SETTINGS_ENABLE_PUSH (RFC 9113 §6.5.2)")
        if name == frames.ENABLE_CONNECT_PROTOCOL:
            if value > 1 or (self.peer_connect and not value):
                raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS_ENABLE_CONNECT_PROTOCOL withdrawn (RFC 8441 §3)")
            self.peer_connect = value == 1

    def _on_goaway(self, last: int, code: int) -> None:
        """Streams above `last` were not looked at (RFC 9113 §6.8)."""
        self.going_away = True
        for number in [number for number in self.streams if number > last]:
            stream = self.streams[number]
            self._forget(stream)
            stream.reset = REFUSED_STREAM
            stream.refused = True
            self._mark(stream)

    def _on_reset(self, stream: Stream) -> None:
        stream.refused = stream.reset == REFUSED_STREAM

    def _on_block(self, number: int, block: bytes, end: bool) -> None:
        fields = self._fields(block)
        stream = self.streams.get(number)
        if stream is None:
            if self._idle(number):
                raise ConnectionFailed(PROTOCOL_ERROR, "HEADERS on a stream that nobody opened (RFC 9113 §5.1)")
            if number not in self._resets:
                raise ConnectionFailed(STREAM_CLOSED, "HEADERS on a closed stream (RFC 9113 §5.1)")
            return
        if stream.message is not None:
            self._on_trailers(stream, fields, end, True)
            return
        if self._decoder.overflow:
            self._break(stream, ENHANCE_YOUR_CALM, "the response's header section is too large")
            return
        try:
            head = read_response(fields)
            if head.status < 200:
                self._on_interim(stream, head, end)
                return
            message = self._begin(stream, head, end)
        except Malformed as error:
            self._break(stream, PROTOCOL_ERROR, str(error))
            return
        if self._decoder.sensitive:
            head.sensitive = self._decoder.sensitive
        stream.message = message
        if end:
            self._end(stream)
        else:
            self._mark(stream)

    def _on_interim(self, stream: Stream, head: ResponseHead, end: bool) -> None:
        """Informational (RFC 9113 §8.1)."""
        if end or head.status == 101:
            raise Malformed("an informational response that ends the stream, or is 101 (RFC 9113 §8.1, §8.6)")
        if head.length not in (CHUNKED, 0):
            raise Malformed("content in an informational response (RFC 9110 §15.2)")
        stream.interims += 1
        if stream.interims > _MAX_INTERIM:
            raise Malformed(f"more than {_MAX_INTERIM} informational responses")
        stream.interim.append(head)
        self._mark(stream)

    def _begin(self, stream: Stream, head: ResponseHead, end: bool) -> ResponseMessage:
        message = ResponseMessage(head)
        if stream.upgrade != NO_UPGRADE and head.status < 300:  # RFC 9113 §8.5, RFC 8441 §5
            head.upgrade = stream.upgrade
            head.length = UNTIL_CLOSE
            if stream.upgrade != CONNECT:
                head.status = 101
            return message
        length = head.length
        if stream.method == b"HEAD" or head.status in (204, 304):
            stream.left = 0  # whatever content-length says
        if stream.method == b"HEAD" or head.status == 304:
            return message
        if head.status == 204 and length > 0:
            raise Malformed("content in a 204 response (RFC 9110 §8.6)")
        if end:
            if length > 0:
                raise Malformed("content-length without content (RFC 9113 §8.1.1)")
            if length == CHUNKED and head.status != 204:
                head.length = 0
        elif length != CHUNKED:
            stream.left = length
        return message

    def request(self, stream: Stream, fields: list[Any], sensitive: list[bytes], end: bool) -> None:
        """Send the head of a request."""
        if stream.reset == OPEN:
            self.send_head(stream, fields, sensitive, end)
