"""A client's connection, HTTP/1.1: feeds the reader, begins an exchange per request, writes what exchanges answer.

Requests of one connection are answered in order: while an exchange runs, later requests wait in the reader's queue,
and reading pauses as soon as one does, so that at most one read's worth waits.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy import errors
from proxy.http.h1 import write
from proxy.http.h1.reader import ProtocolError
from proxy.http.h1.request import RequestReader, no_message
from proxy.http.headers import Headers
from proxy.http.heads import ResponseHead
from proxy.worker.exchange import Exchange
from proxy.worker.tls import Peer, PeerError

if TYPE_CHECKING:
    from proxy.worker.listener import ListenerSlot

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)
_LINGER: Final = 1.0
"""Seconds that a closing connection waits for the client to read the last answer (Envoy: delayed_close_timeout)."""


class Downstream(asyncio.Protocol):
    """One connection of one listener. `closing`: no request after the current one."""

    __slots__ = (
        "_advancing",
        "_chunked",
        "_error",
        "_lingering",
        "_moved",
        "_no_body",
        "_read_paused",
        "_slot",
        "_unread",
        "_unsent",
        "_until_close",
        "_write_paused",
        "address",
        "closing",
        "deadline",
        "entered",
        "exchange",
        "idle_since",
        "peer_uri",
        "reader",
        "scheme",
        "transport",
        "xfcc",
    )

    def __init__(self, slot: ListenerSlot, address: str) -> None:
        state = slot.state
        self._slot = slot
        self.address = address
        self.transport: Any = None
        self.reader = RequestReader(state.config.max_request_headers_bytes, state.config.max_headers_count)
        self.exchange: Exchange | None = None
        self.peer_uri = ""
        self.xfcc: bytes | None = None
        self.scheme = b"http"
        self.deadline = 0.0
        self.entered = 0.0
        self.idle_since = 0.0
        self.closing = False
        self._advancing = False
        self._chunked = False
        self._no_body = False
        self._error: ProtocolError | None = None
        self._lingering = False
        self._read_paused = False
        self._unread = False
        self._unsent = 0
        self._until_close = False
        self._write_paused = False
        self._moved = 0.0

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
                peer = Peer(ssl_object)
                if peer.presented or state.requires_peer:
                    state.verify(peer)
            except PeerError as error:
                slot.refused(self.address, error)
                transport.abort()
                return
            self.peer_uri = peer.identity
            if peer.presented:
                self.xfcc = peer.xfcc(state.own_uri, state.config.set_current_client_cert_details)
            state.counters.values[state.handshakes] += 1
        state.counters.values[state.connections_total] += 1
        self._rest(monotonic())

    def data_received(self, data: bytes) -> None:
        reader, exchange = self.reader, self.exchange
        if self._lingering or self._error is not None:
            return
        try:
            reader.feed(data)
        except ProtocolError as error:
            self._broken(error)
            return
        if exchange is None:
            if reader.messages:
                self._advance()
            elif reader.in_head:
                self._await_head()
        else:
            if exchange.head.length:
                self._moved = monotonic()
                exchange.on_request_more()
            if reader.messages:
                self._pause_reading()

    def eof_received(self) -> bool:
        """The client has sent all it will. Keep the way back open while an answer is due (half-close)."""
        if self.exchange is None or self._lingering:
            return False
        if not self.exchange.message.done:
            self.exchange.on_downstream_lost()
            return False
        self.closing = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._slot.connections.discard(self)
        self._lingering = True
        exchange = self.exchange
        if exchange is not None:
            exchange.on_downstream_lost()
        self.reader.close()
        self.deadline = 0.0

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
        elif self.reader.messages:
            self._advance()

    # ---- requests

    def _advance(self) -> None:
        """Begin the next waiting request, and the next, as long as they are answered at once."""
        if self._advancing:
            return
        self._advancing = True
        messages = self.reader.messages
        while messages and self.exchange is None and not self.closing and not self._write_paused:
            message = messages.popleft()
            state = self._slot.state
            self.exchange = exchange = Exchange(self, state, message)
            if not message.done:
                self._moved = exchange.started
                if message.head.expect_continue:
                    self.transport.write(_CONTINUE)
            if self._error is not None and not message.done:
                exchange.on_request_broken(str(self._error))
                break
            exchange.start()
            if not exchange.ended:
                self._watch(exchange)
        self._advancing = False
        if self.closing and self.exchange is None:
            self._close()
        elif messages:  # behind an exchange, or behind answers that the client does not read
            self._pause_reading()
        elif self.exchange is None:
            if self._error is not None:
                self._refuse(self._error)
            else:
                self._resume_reading()

    def finished(self, keep: bool, now: float) -> None:
        """The current exchange is over; its answer is written. `keep`: its request was read to the end."""
        self.exchange = None
        if not keep:
            self.closing = True
            self._unread = True
        if not self._lingering:
            self._rest(now)
            self._advance()

    def _broken(self, error: ProtocolError) -> None:
        """What arrived is not HTTP. Requests before it are answered first."""
        self._error = error
        exchange = self.exchange
        if exchange is None:
            self._advance()
        elif not exchange.message.done:
            exchange.on_request_broken(str(error))

    def _refuse(self, error: ProtocolError) -> None:
        """Answer to bytes that never became a request: they leave an access-log record like any other."""
        kind = errors.HEADERS_TOO_LARGE if error.too_large else errors.BAD_REQUEST
        self._local(kind, str(error))

    def _local(self, kind: errors.ErrorKind, detail: str) -> None:
        self.closing = True
        self.exchange = exchange = Exchange(self, self._slot.state, no_message())
        exchange.reply(kind, detail)

    # ---- answers

    def respond(
        self, exchange: Exchange, head: ResponseHead, chunks: list[bytes], done: bool, trailers: Headers
    ) -> None:
        """Write the head of the answer and what there is of its body, at once."""
        request, state, length, status = exchange.head, exchange.state, head.length, head.status
        self._no_body = request.method == b"HEAD" or status in (204, 304)
        self._chunked = False
        closing = self.closing or not request.keep_alive or self._slot.draining
        if self._no_body:
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
            framing += b"connection: close\r\n"
        elif request.http10:
            framing += b"connection: keep-alive\r\n"
        extra = state.server_line if head.dated else state.server_line + state.date_line()
        data = write.response_bytes(head, framing, extra)
        if chunks or done:
            self._write(data, chunks, done, trailers)
        else:
            self.transport.write(data)

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

    # ---- flow of the request's body

    def pause_request(self) -> None:
        """The upstream takes no more for now."""
        self._pause_reading()

    def resume_request(self) -> None:
        """The upstream takes more."""
        if not self.reader.messages:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and self.transport is not None and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    # ---- time

    def _rest(self, now: float) -> None:
        """Between requests."""
        self.idle_since = now
        idle = self._slot.state.config.idle_timeout
        self.deadline = now + idle if idle else 0.0
        self._slot.timers.watch(self)

    def _await_head(self) -> None:
        """A head has begun: it must be complete in time (request_headers_timeout)."""
        timeout = self._slot.state.config.request_headers_timeout
        if timeout and self.idle_since:
            self.idle_since = 0.0
            self.deadline = monotonic() + timeout
            self._slot.timers.watch(self)

    def _watch(self, exchange: Exchange) -> None:
        idle = exchange.state.config.stream_idle_timeout
        self._moved = exchange.started
        deadline = exchange.request_deadline
        if idle and (not deadline or exchange.started + idle < deadline):
            deadline = exchange.started + idle
        self.deadline = deadline
        self._slot.timers.watch(self)

    def on_deadline(self, now: float) -> None:
        """See worker.timers: whichever time was set last has come."""
        exchange = self.exchange
        if self._lingering:
            self._linger(now)
        elif exchange is None:
            if self.reader.in_head:
                self._local(errors.REQUEST_HEADERS_TIMEOUT, "")
            else:
                self._close()
        elif exchange.request_deadline and exchange.request_deadline <= now:
            exchange.on_deadline(now)
        else:
            idle = exchange.state.config.stream_idle_timeout
            if idle and self._moved + idle <= now:
                exchange.on_idle()
            else:
                dues = (self._moved + idle if idle else 0.0, exchange.request_deadline)
                self.deadline = min(filter(None, dues), default=0.0)

    # ---- the end

    def drain(self, now: float) -> None:
        """Close if nothing has been asked for a while; otherwise the next answer says that it is the last."""
        if self.exchange is None and not self.reader.in_head and now - self.idle_since >= _LINGER:
            self._close()

    def _close(self) -> None:
        """Close after what is written. A client that still sends gets time to read the answer first: closing with
        unread input would reset the connection and destroy the answer (RFC 9112 §9.6)."""
        transport = self.transport
        if self._lingering or transport.is_closing():
            return
        self._lingering = True
        self._unsent = transport.get_write_buffer_size()
        self._moved = monotonic()
        self.deadline = self._moved + _LINGER
        self._slot.timers.watch(self)
        if (self._error is not None or self._unread) and transport.can_write_eof():
            self._resume_reading()
            try:
                transport.write_eof()
            except OSError:  # reset by the client, which has not been read yet
                transport.abort()
        else:
            transport.close()

    def _linger(self, now: float) -> None:
        """Closing takes time. A slow client gets what is written to the end, as long as it moves within the stream
        idle timeout, and then a moment to read it."""
        unsent = self.transport.get_write_buffer_size()
        idle = self._slot.state.config.stream_idle_timeout
        if unsent != self._unsent:
            self._unsent = unsent
            self._moved = now
        elif not unsent or (idle and self._moved + idle <= now):
            self.transport.abort()
            return
        self.deadline = now + _LINGER

    def abort(self) -> None:
        """Break the connection, in the middle of an answer. Where only the connection's end tells the answer's, a
        reset tells that this is not it."""
        self._lingering = True
        if self._until_close:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
