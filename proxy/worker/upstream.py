"""A connection to an endpoint, HTTP/1.1: writes one request at a time and hands what comes back to its exchange."""

from __future__ import annotations

import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.http.h1 import write
from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.response import ResponseReader
from proxy.http.headers import Headers
from proxy.http.heads import CHUNKED, RequestHead
from proxy.worker import tls
from proxy.worker.carrier import Carrier
from proxy.worker.reset import is_open, poll_again

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.worker.exchange import Exchange
    from proxy.worker.pool import Pool


_RESET: Final = struct.pack("ii", 1, 0)
_FLUSH_CHECK: Final = 5.0
"""Seconds within which an upstream has to take something of what a tunnel's end has left for it."""


class Upstream(Carrier):
    """One connection of one endpoint; an asyncio.Protocol, without the base class, which cannot be compiled.

    `usable`: idle and good for another request."""

    __slots__ = (
        "_answered",
        "_chunked",
        "_expires",
        "_pool",
        "_read_paused",
        "_requests",
        "_tunnel",
        "_unsent",
        "cluster",
        "endpoint",
        "reader",
        "transport",
        "usable",
    )

    def __init__(self, pool: Pool, cluster: ClusterState, endpoint: Endpoint) -> None:
        super().__init__(False)
        self._pool = pool
        self.cluster = cluster
        self.endpoint = endpoint
        self.transport: Any = None
        config = cluster.config
        self.reader = ResponseReader(config.max_response_headers_bytes, config.max_headers_count)
        self.usable = False
        self._answered = False
        self._chunked = False
        self._expires = monotonic() + config.max_connection_duration if config.max_connection_duration else 0.0
        self._read_paused = False
        self._requests = 0
        self._tunnel = False
        self._unsent = 0

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
        """Send a request's head and what there is of its body, in one write."""
        self.exchange = exchange
        self.usable = False
        self.deadline = 0.0
        self._answered = False
        self._requests += 1
        self._chunked = head.length == CHUNKED
        self.sent_all = done
        self.reader.expect(head.method, head.upgrade)
        data = write.request_bytes(head, target, authority, extra)
        if chunks or self._chunked:
            data += self._body(chunks, done, trailers)
        self.transport.write(data)

    def send(self, chunks: list[bytes], done: bool, trailers: Headers) -> None:
        """Send more of the request's body, or its end."""
        self.sent_all = done
        data = self._body(chunks, done, trailers)
        if data:
            self.transport.write(data)
        if done and self._tunnel:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            elif self.exchange is not None:
                self.exchange.on_no_half_close()

    def switch(self) -> None:
        """The connection is a tunnel now: `send` takes bytes as they are, and its end is passed on."""
        self._tunnel = True
        self._chunked = False
        self.sent_all = False

    def _body(self, chunks: list[bytes], done: bool, trailers: Headers) -> bytes:
        if not self._chunked:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        data = write.chunk_bytes(chunks) if chunks else b""
        return data + write.last_chunk(trailers) if done else data

    def end_exchange(self) -> None:
        """Request and response are complete: back to the pool, or closed."""
        self.exchange = None
        message = self.reader.message
        limit = self.cluster.max_requests_per_connection
        if (
            message is None
            or not message.done
            or not message.head.keep_alive
            or self.reader.excess
            or not self.sent_all
            or self.write_paused  # it was answered without being read; nobody would pause the next request's body
            or self.endpoint.removed
            or (limit and self._requests >= limit)
            or (self._expires and self._expires <= monotonic())
            or self.transport.is_closing()
        ):
            self.abort()
            return
        self.reader.message = None
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()
        self.usable = True
        self._pool.release(self)

    @property
    def dead(self) -> bool:
        """Whether the peer has ended or reset an idle connection, which may not have been heard of yet."""
        return not is_open(self.transport.get_extra_info("socket"))

    def abort(self) -> None:
        """Close at once; nothing more is told to the exchange. A tunnel is reset, so that its upstream cannot take
        what it has for the whole."""
        self.exchange = None
        self.usable = False
        if not self.transport.is_closing():
            if self._tunnel:
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def finish(self) -> None:
        """Close a tunnel in order: the upstream gets what was sent; nothing more is told to the exchange."""
        self.exchange = None
        self.transport.close()
        self._unsent = self.transport.get_write_buffer_size()
        self.deadline = monotonic() + _FLUSH_CHECK
        self._pool.timers.watch(self)

    # ---- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        self._answered = True
        reader = self.reader
        try:
            reader.feed(data)
        except ProtocolError as error:
            self._broken(exchange, str(error))
            return
        if exchange is None:  # data that answers no request
            self.abort()
            return
        if reader.interim:
            heads, reader.interim = reader.interim, []
            exchange.on_interim(heads)
        message = reader.message
        if message is not None:
            exchange.on_response(message)
        if not reader.complete and not self._read_paused:
            poll_again(self.transport)

    def _broken(self, exchange: Exchange | None, text: str) -> None:
        self.abort()
        if exchange is not None:
            exchange.on_upstream_error(text)

    def eof_received(self) -> bool:
        exchange, reader = self.exchange, self.reader
        if exchange is not None and reader.end():
            message = reader.message
            assert message is not None
            exchange.on_response(message)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self.usable = False
        self._pool.timers.forget(self)
        self._pool.closed(self)
        refused = not self._answered and self._requests <= 1 and tls.refuses_us(exc)
        if refused and exc is not None:
            self._pool.tls_failed(self, exc)
        if exchange is None:
            return
        if refused and not self._tunnel:
            exchange.upstream = None
            exchange.on_connect_failure(f"{self.endpoint.text}: {exc}")
        else:
            exchange.on_upstream_lost(self._requests > 1, self._answered, str(exc or "closed by the peer"))

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.downstream.pause_request()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.downstream.resume_request()

    def pause_response(self) -> None:
        """The client takes no more for now."""
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def resume_response(self) -> None:
        """The client takes more."""
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    # ---- time

    def rest(self) -> None:
        """Idle in the pool: close after the cluster's idle timeout, and when the connection is too old."""
        idle = self.cluster.idle_timeout
        if idle:
            self.deadline = monotonic() + idle
        if self._expires and (not idle or self._expires < self.deadline):
            self.deadline = self._expires
        if self.deadline:
            self._pool.timers.watch(self)

    def on_deadline(self, now: float) -> None:
        """Idle for too long, or too old; or a tunnel that is slow to end."""
        if self.usable:
            self.abort()
        elif self._tunnel and self.exchange is None:
            unsent = self.transport.get_write_buffer_size()
            if unsent == self._unsent:
                self.transport.abort()
            else:
                self._unsent = unsent
                self.deadline = now + _FLUSH_CHECK
