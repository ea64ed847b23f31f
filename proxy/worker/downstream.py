"""A client's connection, HTTP/1.1: feeds the reader, begins an exchange per request, writes what exchanges answer.

Requests of one connection are answered in order: while an exchange runs, later requests wait in the reader, unparsed,
and reading pauses as soon as there are any, so that at most one read's worth waits.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy import errors
from proxy.http.h1 import write
from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.request import no_message
from proxy.http.h2.frames import PREFACE
from proxy.http.headers import Headers
from proxy.http.heads import ResponseHead
from proxy.worker.connection import ClientConnection
from proxy.worker.exchange import Exchange
from proxy.worker.h2.downstream import Http2Downstream
from proxy.worker.peer import Peer
from proxy.worker.reset import poll_again

if TYPE_CHECKING:
    from proxy.worker.listener import ListenerSlot

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Downstream(ClientConnection):
    """One connection of one listener; an asyncio.Protocol, without the base class, which cannot be compiled."""

    __slots__ = ("_advancing", "_chunked", "_client_ended", "_first", "_fresh", "_no_body", "_requests")

    def __init__(self, slot: ListenerSlot, address: str) -> None:
        super().__init__(slot, address)
        self._advancing = False
        self._chunked = False
        self._client_ended = False  # while an answer was due
        self._fresh = True  # nothing tells yet which protocol the client speaks
        self._first = b""
        self._no_body = False
        self._requests = 0  # counted where there is a limit

    # ---- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        slot = self._slot
        if slot.closed:
            transport.abort()
            return
        state = slot.state
        slot.connections.add(self)
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            self.scheme = b"https"
            try:
                peer = Peer(ssl_object, state.context is not None and state.context.verifies)
                if peer.presented or state.requires_peer:
                    state.verify(peer)
            except Exception as error:  # whatever it is: who has not passed does not get in
                self._lingering = True
                slot.refused(self.address, error)
                transport.abort()
                return
            self.peer_uri = peer.identity
            if peer.presented:
                self.xfcc = peer.xfcc(state.own_uri, state.config.set_current_client_cert_details)
            state.counters.values[state.handshakes] += 1
        if state.config.max_connection_duration:
            self._expires = monotonic() + state.config.max_connection_duration
        state.counters.values[state.connections_total] += 1
        if ssl_object is not None and ssl_object.selected_alpn_protocol() == "h2" and state.config.codec != "HTTP1":
            self._speak_http2(b"")
            return
        self._rest(monotonic())

    def _speak_http2(self, data: bytes) -> None:
        """The client chose HTTP/2: `data` is what it has said so far."""
        slot, transport = self._slot, self.transport
        slot.connections.discard(self)
        slot.timers.forget(self)
        successor = Http2Downstream(slot, self.address, self.peer_uri, self.xfcc, self.scheme, self._expires)
        transport.set_protocol(successor)
        successor.open(transport)
        if data:
            successor.data_received(data)

    def _is_http2(self, data: bytes) -> bool:
        """Whether the first bytes are HTTP/2's preface, or may become it (RFC 9113 §3.3)."""
        codec = self._slot.state.config.codec
        if codec == "AUTO":
            return data[: len(PREFACE)] == PREFACE[: len(data)]
        return codec == "HTTP2"

    def data_received(self, data: bytes) -> None:
        if self._fresh:
            data = self._first + data
            if self._is_http2(data):
                if len(data) < len(PREFACE):
                    self._first = data
                    self._await_head()
                else:
                    self._speak_http2(data)
                return
            self._first = b""
            self._fresh = False
        reader, exchange = self.reader, self.exchange
        if self._lingering or self._error is not None:
            return
        try:
            reader.feed(data)
        except ProtocolError as error:
            self._broken(error)
            return
        if exchange is None:
            if reader.message is not None:
                self._advance()
            elif reader.in_head:
                self._await_head()
        else:
            if exchange.head.length or exchange.tunnel:
                self._moved = monotonic()
                exchange.on_request_more()
            if reader.waiting:
                self._pause_reading()
        if not reader.complete and not self._read_paused:
            poll_again(self.transport)

    def eof_received(self) -> bool:
        """The client has sent all it will. Keep the way back open while an answer is due (half-close)."""
        exchange = self.exchange
        if exchange is None or self._lingering:
            return False
        if not exchange.message.done:
            if not self.reader.end():
                exchange.on_downstream_lost()
                return False
            exchange.on_request_more()
        self.closing = self._client_ended = True
        if self.scheme != b"http":
            return False  # TLS transports know no half-close
        self._probe_soon()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._slot.connections.discard(self)
        self._lingering = True
        exchange = self.exchange
        if exchange is not None:
            exchange.on_downstream_lost()
        self._slot.timers.forget(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.pause_response()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._moved = monotonic()
        if self.exchange is not None:
            if self.exchange.upstream is not None:
                self.exchange.upstream.resume_response()
        elif self.reader.message is not None:
            self._advance()

    def tunnels(self) -> int:
        """How many streams carry another protocol: one at most."""
        return int(self.exchange is not None and self.exchange.tunnel)

    # ---- requests

    def _advance(self) -> None:
        """Begin the next waiting request, and the next, as long as they are answered at once."""
        if self._advancing:
            return
        self._advancing = True
        reader = self.reader
        while self.exchange is None and not self.closing and not self._write_paused:
            message = reader.message
            if message is None:
                break
            state = self._slot.state
            self.exchange = exchange = Exchange(self, state, message)
            if state.max_requests_per_connection:
                self._count_request(state.max_requests_per_connection)
            self._body_due = 0.0
            if not message.done:
                timeout = state.config.request_timeout
                self._body_due = exchange.started + timeout if timeout else 0.0
                self._moved = exchange.started
                if message.head.expect_continue:
                    self.transport.write(_CONTINUE)
                if self._error is not None:
                    exchange.on_request_broken(str(self._error))
                    break
            exchange.start()
            if not exchange.ended:
                self._watch(exchange)
        self._advancing = False
        if self.exchange is not None:
            if reader.waiting:
                self._pause_reading()
        elif self.closing:
            self._close()
        elif reader.message is not None:  # behind answers that the client does not read
            self._pause_reading()
        elif self._error is not None:
            self._refuse(self._error)
        else:
            self._resume_reading()
            if reader.in_head:  # it came behind a request that is answered now
                self._await_head()

    def _count_request(self, limit: int) -> None:
        self._requests += 1
        if self._requests >= limit:
            self.closing = True

    def finished(self, keep: bool, now: float) -> None:
        """The current exchange is over; its answer is written. `keep`: its request was read to the end."""
        self.exchange = None
        if not keep:
            self.closing = True
            self._unread = True
        if self._lingering:
            return
        if self.closing:
            self._unread = self._unread or self.reader.waiting
        else:
            try:
                self.reader.next()
            except ProtocolError as error:  # in what waited behind this request
                self._error = error.with_traceback(None)
        self._rest(now)
        self._advance()

    def _broken(self, error: ProtocolError) -> None:
        """What arrived is not HTTP. Requests before it are answered first."""
        self._error = error.with_traceback(None)  # whose frames would keep this connection alive
        exchange = self.exchange
        if exchange is None:
            self._advance()
        elif not exchange.message.done:
            exchange.on_request_broken(str(error))

    def _refuse(self, error: ProtocolError) -> None:
        """Answer to bytes that never became a request: they leave an access-log record like any other."""
        self._local(error.kind, str(error))

    def _local(self, kind: errors.ErrorKind, detail: str) -> None:
        self.closing = True
        self.exchange = exchange = Exchange(self, self._slot.state, no_message())
        exchange.reply(kind, detail)

    # ---- answers

    def respond(
        self, exchange: Exchange, head: ResponseHead, chunks: list[bytes], done: bool, trailers: Headers
    ) -> None:
        """Write the head of the answer and what there is of its body, at once."""
        if exchange.state.response_policy is not None:
            exchange.state.response_policy.apply(head, exchange.request_id)
        request, state, length, status = exchange.head, exchange.state, head.length, head.status
        self._no_body = request.method == b"HEAD" or status in (204, 304)
        self._chunked = False
        closing = self.closing or not request.keep_alive or self._slot.draining
        if head.upgrade:
            closing = self.closing = self._until_close = True
            self._no_body = False  # whatever method and status say
            framing = write.upgrade_lines(head.upgrade)
        elif self._no_body:
            framing = b"content-length: %d\r\n" % length if length >= 0 and status != 204 else b""
        elif length >= 0:
            framing = b"content-length: %d\r\n" % length
        elif request.http10:
            framing = b""
            closing = self._until_close = True
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        if closing:
            self.closing = True
            if not head.upgrade:
                framing += b"connection: close\r\n"
        elif request.http10:
            framing += b"connection: keep-alive\r\n"
        extra = state.server_line if head.dated else state.server_line + state.date_line()
        data = write.response_bytes(head, framing, extra)
        if chunks or done:
            self._write(data, chunks, done, trailers)
        else:
            self.transport.write(data)

    def interim(self, head: ResponseHead) -> None:
        """Pass on an informational response (RFC 9110 §15.2), which HTTP/1.0 does not know."""
        assert self.exchange is not None
        if not self.exchange.head.http10:
            self.transport.write(write.response_bytes(head, b"", b""))

    def switch(self) -> None:
        """What the client sends from now on is the upstream's, whatever it means."""
        self._body_due = 0.0
        self.reader.tunnel()
        if self._client_ended:
            self.reader.end()
        self._resume_reading()

    def more(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        """Write more of the answer's body, or its end."""
        self._moved = monotonic()
        if chunks or done:
            self._write(b"", chunks, done, trailers)

    def _write(self, data: bytes, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        if self._no_body:
            pass
        elif self._chunked:
            if chunks:
                data += write.chunk_bytes(chunks)
            if done:
                data += write.last_chunk(trailers)
        elif chunks:
            data = b"".join([data, *chunks]) if data or len(chunks) > 1 else chunks[0]
        if data:
            self.transport.write(data)
            if self._write_paused and self.exchange is not None and self.exchange.upstream is not None:
                self.exchange.upstream.pause_response()
