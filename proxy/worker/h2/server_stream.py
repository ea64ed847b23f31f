"""One request of an HTTP/2 client."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from proxy import errors
from proxy.http.h1.request import no_message
from proxy.http.h2 import frames
from proxy.http.h2.messages import response_fields
from proxy.http.h2.stream import OPEN, Stream
from proxy.http.headers import Headers
from proxy.http.heads import CONNECT, NONE_SENSITIVE, ResponseHead
from proxy.worker.client import Client
from proxy.worker.exchange import Exchange
from proxy.worker.h2.nobody import NOBODY

if TYPE_CHECKING:
    from proxy.worker.h2.downstream import Http2Downstream
    from proxy.worker.tables import ListenerState


class ServerStream(Client):
    """See the module's text. It is never in the timer wheel: its connection is, for all of its streams."""

    __slots__ = ("_connection", "_no_body", "_reset_behind", "_stream", "_unsent")

    def __init__(self, connection: Http2Downstream, stream: Stream) -> None:
        super().__init__(connection.slot, connection.address, True)
        self._connection = connection
        self._stream = stream
        self.peer_uri = connection.peer_uri
        self.xfcc = connection.xfcc
        self.scheme = connection.scheme
        self._no_body = False
        self._reset_behind = False  # when all of the answer is written
        self._unsent = 0  # bytes of the answer, when that was last looked at

    def begin(self, state: ListenerState) -> None:
        """The stream was opened."""
        stream = self._stream
        request = stream.request
        self._moved = stream.opened
        if request is None or stream.too_large:
            self.exchange = exchange = Exchange(self, state, request or no_message())
            if request is None:
                exchange.reply(errors.BAD_REQUEST, stream.broken)  # for the log: the stream is reset
            else:
                exchange.reply(errors.HEADERS_TOO_LARGE)
            return
        self.exchange = exchange = Exchange(self, state, request)
        if not request.done:
            timeout = state.config.request_timeout
            self._body_due = exchange.started + timeout if timeout else 0.0
            if request.head.expect_continue and not request.body:
                self.interim(ResponseHead(100, b"", []))
        if stream.broken:
            exchange.on_request_broken(stream.broken)
            return
        exchange.start()
        if stream.reset != OPEN:
            self.on_stream()
        elif not exchange.ended:
            self.deadline = self._exchange_deadline(exchange)
            if self.deadline:
                self._connection.due(self.deadline)

    # ---- what the connection tells

    def on_stream(self) -> None:
        """More of the request came, or its end, or that of the stream."""
        exchange, stream = self.exchange, self._stream
        if exchange is None or exchange.ended:
            self._connection.over(self._connection.server.now)
            return
        if stream.reset != OPEN:
            if stream.broken:
                exchange.on_request_broken(stream.broken)
            elif exchange.tunnel and exchange.message.body:
                exchange.on_request_more()  # it was received, and goes on
            if not exchange.ended:
                exchange.on_downstream_lost()
        elif exchange.tunnel or not exchange.head.upgrade:
            self._moved = self._connection.server.now
            exchange.on_request_more()

    def on_drained(self) -> None:
        """All of the answer that there was is written."""
        self._moved = monotonic()
        if self.exchange is None:
            self._stream.owner = NOBODY
        if self._reset_behind:
            self._connection.server.reset(self._stream, frames.NO_ERROR)
            self._connection.flush_soon()
            self._connection.over(self._moved)
        elif self.exchange is None:
            self._connection.over(self._moved)
        elif self.exchange.upstream is not None:
            self.exchange.upstream.resume_response()

    def on_lost(self) -> None:
        """The connection is gone."""
        self._stream.reset = frames.CANCEL
        if self.exchange is not None:
            self.exchange.on_downstream_lost()

    # ---- the request's body

    def pause_request(self) -> None:
        self._connection.server.hold(self._stream)

    def resume_request(self) -> None:
        self._connection.server.release(self._stream)
        self._connection.flush_soon()

    def switch(self) -> None:
        self._body_due = 0.0
        self._connection.server.switch(self._stream)

    # ---- the answer

    def respond(
        self, exchange: Exchange, head: ResponseHead, chunks: list[bytes], done: bool, trailers: Headers
    ) -> None:
        state, stream, connection = exchange.state, self._stream, self._connection
        if stream.reset != OPEN:
            return
        if state.response_policy is not None:
            state.response_policy.apply(head, exchange.request_id)
        self._no_body = not head.upgrade and (exchange.head.method == b"HEAD" or head.status in (204, 304))
        fields: list[Any] = response_fields(head, state.server_fields)
        if not head.dated:
            fields.append(state.date_field())
        end = done and (self._no_body or not (chunks or trailers))
        connection.server.send_head(stream, fields, head.sensitive, end)
        if not end and (chunks or done):
            self._send(chunks, done, trailers)
        if not connection.dirty:
            connection.flush_soon()

    def interim(self, head: ResponseHead) -> None:
        if self._stream.reset == OPEN:
            self._connection.server.send_head(self._stream, response_fields(head, []), head.sensitive, False)
            self._connection.flush_soon()

    def more(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        self._moved = monotonic()
        if chunks or done:
            self._send([] if self._no_body else chunks, done, trailers)
            if not self._connection.dirty:
                self._connection.flush_soon()

    def _send(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        exchange, stream = self.exchange, self._stream
        head = exchange.response_head if exchange is not None else None
        sensitive = head.sensitive if head is not None else NONE_SENSITIVE
        self._connection.server.send(stream, chunks, done, trailers, sensitive)
        if stream.choked and not done and exchange is not None and exchange.upstream is not None:
            exchange.upstream.pause_response()

    def finished(self, keep: bool, now: float) -> None:
        self.exchange = None
        stream, connection, message = self._stream, self._connection, self._stream.message
        self.deadline = 0.0
        if stream.reset == OPEN and not (keep and message is not None and message.done):
            # The answer is whole; the rest of the request, or of a tunnel that is none, is not wanted (RFC 9113 §8.1).
            if stream.choked:
                self._reset_behind = True
                connection.server.hold(stream)
            else:
                connection.server.reset(stream, frames.NO_ERROR)
                connection.flush_soon()
        if stream.id not in connection.server.streams:
            stream.owner = NOBODY
        elif stream.choked:
            self._await_flush(now)
        connection.over(now)

    def _await_flush(self, now: float) -> None:
        """The exchange has ended, but the client has not taken all of its answer: as long as it takes some within the
        stream idle timeout it gets the rest."""
        idle = self._slot.state.config.stream_idle_timeout
        self._unsent = self._stream.pending_size
        if idle:
            self.hasten(now + idle)

    def abort(self) -> None:
        exchange = self.exchange
        tunnel = exchange is not None and exchange.head.upgrade == CONNECT
        self._connection.server.reset(self._stream, frames.CONNECT_ERROR if tunnel else frames.INTERNAL_ERROR)
        self._connection.flush_soon()

    # ---- time

    def hasten(self, deadline: float) -> None:
        if not self.deadline or deadline < self.deadline:
            self.deadline = deadline
            self._connection.due(deadline)

    def on_deadline(self, now: float) -> None:
        """See Http2Downstream: one of the exchange's times has come, or it has moved on."""
        exchange, stream = self.exchange, self._stream
        self.deadline = 0.0
        if exchange is not None:
            if not self._on_exchange_deadline(exchange, now):
                self.deadline = self._exchange_deadline(exchange)
        elif stream.choked and stream.reset == OPEN:
            if stream.pending_size == self._unsent:
                self._connection.server.reset(stream, frames.CANCEL)
                self._connection.flush_soon()
                self._connection.over(now)
            else:
                self._await_flush(now)
