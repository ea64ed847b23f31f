"""One request on an HTTP/2 connection to an endpoint."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.http.h2 import frames
from proxy.http.h2.messages import request_fields
from proxy.http.h2.stream import OPEN, Stream
from proxy.http.headers import Headers
from proxy.http.heads import NO_UPGRADE, RequestHead, ResponseMessage
from proxy.worker.carrier import Carrier
from proxy.worker.h2.nobody import NOBODY

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange
    from proxy.worker.h2.upstream import Http2Upstream

_LINGER: Final = 5.0
"""Seconds that an upstream has to take something of what a tunnel's end has left for it, and then to end it, too."""


class ClientStream(Carrier):
    """See the module's text."""

    __slots__ = ("_connection", "_stream", "_unsent")

    def __init__(self, connection: Http2Upstream) -> None:
        super().__init__(True)
        self._connection = connection
        self._stream: Stream | None = None
        self._unsent = 0
        self.trusted = connection.trusted

    # ---- requests

    def begin(
        self,
        exchange: Exchange,
        head: RequestHead,
        target: bytes,
        authority: bytes,
        extra: Headers,
        chunks: list[bytes],
        done: bool,
        trailers: Headers,
    ) -> None:
        self.exchange = exchange
        self.sent_all = done
        connection = self._connection
        codec = connection.client
        if b"," in head.upgrade:  # HTTP/2 can ask for one protocol, HTTP/1.1 names the best first (RFC 9110 §7.8)
            head.upgrade = head.upgrade.partition(b",")[0]
        self._stream = stream = codec.open(head.method, head.upgrade, monotonic())
        stream.owner = self
        scheme = head.forwarded_proto or exchange.downstream.scheme
        fields: list[Any] = request_fields(head, scheme, target, authority, extra, head.length)
        tunnel = head.upgrade != NO_UPGRADE
        end = done and not chunks and not trailers and not tunnel
        codec.request(stream, fields, head.sensitive, end)
        if not end and not tunnel and (chunks or done):
            self.send(chunks, done, trailers)
        if not connection.dirty:
            connection.flush_soon()

    def send(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        self.sent_all = done
        stream, exchange, connection = self._stream, self.exchange, self._connection
        if stream is None or exchange is None:
            return
        connection.client.send(stream, chunks, done, trailers, exchange.message.sensitive)
        if stream.choked and not done:
            self.write_paused = True
            exchange.downstream.pause_request()
        if not connection.dirty:
            connection.flush_soon()

    def switch(self) -> None:
        self.sent_all = False

    def end_exchange(self) -> None:
        self._leave(frames.NO_ERROR)

    def finish(self) -> None:
        stream = self._stream
        self.exchange = None
        if stream is None:
            return
        connection = self._connection
        connection.client.release(stream)
        connection.client.send(stream, [], True, [], stream.sensitive)
        connection.flush_soon()
        self._end_soon(stream, monotonic())

    def _end_soon(self, stream: Stream, now: float) -> None:
        """A reset now would overtake what waits to be sent, or make the upstream drop what it has not read."""
        self._unsent = stream.pending_size
        self.deadline = now + _LINGER
        self._connection.pool.timers.watch(self)

    def on_deadline(self, now: float) -> None:
        """A tunnel that is slow to end."""
        stream = self._stream
        if stream is not None and stream.pending_size and stream.pending_size != self._unsent:
            self._end_soon(stream, now)
        else:
            self._leave(frames.CANCEL)

    def abort(self) -> None:
        self._leave(frames.CANCEL)

    def _leave(self, code: int) -> None:
        self.exchange = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.owner = NOBODY
            connection = self._connection
            if self.deadline or self.entered:
                connection.pool.timers.forget(self)
            if stream.reset == OPEN and stream.id in connection.client.streams:
                connection.client.reset(stream, code)
                connection.flush_soon()
            connection.over()

    # ---- the response

    def pause_response(self) -> None:
        if self._stream is not None:
            self._connection.client.hold(self._stream)

    def resume_response(self) -> None:
        if self._stream is not None:
            self._connection.client.release(self._stream)
            self._connection.flush_soon()

    # ---- what the connection tells

    def on_stream(self) -> None:
        """Something of the response came, or the stream's end."""
        exchange, stream = self.exchange, self._stream
        if stream is None:
            return
        if exchange is None:
            self._on_end(stream)
            return
        if stream.interim:
            heads, stream.interim = stream.interim, []
            exchange.on_interim(heads)
        message = stream.message
        if message is not None:
            assert isinstance(message, ResponseMessage)
            exchange.on_response(message)
        if stream.reset != OPEN and self.exchange is not None:
            self._on_reset(stream)

    def _on_end(self, stream: Stream) -> None:
        """Nobody waits for an answer any more; the upstream's own end is waited for."""
        message = stream.message
        if message is not None:
            message.body = []
        if stream.reset != OPEN or (message is not None and message.done):
            self._leave(frames.NO_ERROR)

    def _on_reset(self, stream: Stream) -> None:
        exchange, self.exchange, self._stream = self.exchange, None, None
        stream.owner = NOBODY
        connection = self._connection
        connection.over()
        assert exchange is not None
        where = connection.endpoint.text
        if stream.broken:
            exchange.on_upstream_error(f"{where}: {stream.broken}")
        elif stream.refused and stream.message is None:
            exchange.on_refused(f"{where}: {'GOAWAY' if connection.client.going_away else 'REFUSED_STREAM'}")
        else:
            exchange.on_upstream_reset(f"{where}: {frames.code_name(stream.reset)}")

    def on_drained(self) -> None:
        """All of the request that there was is written."""
        if self.write_paused:
            self.write_paused = False
            if self.exchange is not None:
                self.exchange.downstream.resume_request()

    def on_lost(self, reused: bool, text: str, unsent: bool) -> None:
        """The connection is gone; `unsent`: it never took anything."""
        exchange, stream = self.exchange, self._stream
        self.exchange, self._stream = None, None
        if self.entered:
            self._connection.pool.timers.forget(self)
        if exchange is None or stream is None:
            return
        exchange.upstream = None
        if unsent:
            exchange.on_connect_failure(text)
        else:
            exchange.on_upstream_lost(reused, stream.message is not None, text)
