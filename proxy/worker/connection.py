"""A client's connection while it lives: its flow, its timeouts and its end. downstream.py is what it says."""

from __future__ import annotations

import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy import errors
from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.request import RequestReader
from proxy.worker.client import Client
from proxy.worker.reset import was_reset

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange
    from proxy.worker.listener import ListenerSlot

_RESET: Final = struct.pack("ii", 1, 0)
_DRAIN_IDLE: Final = 1.0
"""Seconds without a request after which a connection that is to go counts as idle."""
_FLUSH_CHECK: Final = 1.0
_PROBE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBE_AFTER: Final = 0.25
_PROBE_ANSWER: Final = 1.0
"""Seconds from the client's FIN to the probe, and from the probe to the look at what came back."""


class ClientConnection(Client):
    """The base of Downstream."""

    __slots__ = (
        "_error",
        "_expires",
        "_lingering",
        "_probe_at",
        "_probed",
        "_read_paused",
        "_unread",
        "_unsent",
        "_until_close",
        "_write_paused",
        "idle_since",
        "reader",
        "transport",
    )

    def __init__(self, slot: ListenerSlot, address: str) -> None:
        super().__init__(slot, address, False)
        config = slot.state.config
        self.transport: Any = None
        self.reader = RequestReader(
            config.max_request_headers_bytes,
            config.max_headers_count,
            config.accept_http_10,
            config.default_host_for_http_10.encode(),
            config.allow_absolute_url,
            config.headers_with_underscores_action == "ALLOW",
        )
        self.idle_since = 0.0
        self._expires = 0.0  # when the connection has lived long enough
        self._error: ProtocolError | None = None
        self._lingering = False
        self._probe_at = 0.0
        self._probed = False
        self._read_paused = False
        self._unread = False
        self._unsent = 0
        self._until_close = False
        self._write_paused = False

    def _local(self, kind: errors.ErrorKind, detail: str) -> None:
        """Answer something that never became a request."""
        raise NotImplementedError

    # ---- flow of the request's body

    def pause_request(self) -> None:
        self._pause_reading()

    def resume_request(self) -> None:
        if not self.reader.waiting:
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
        idle = self._slot.state.idle_timeout
        self.deadline = now + idle if idle else 0.0
        if self._expires and (not idle or self._expires < self.deadline):
            self.deadline = self._expires
        self._slot.timers.watch(self)

    def _await_head(self) -> None:
        """A head has begun: it must be complete in time (request_headers_timeout)."""
        timeout = self._slot.state.head_timeout
        if timeout and self.idle_since:
            self.idle_since = 0.0
            self.deadline = monotonic() + timeout
            self._slot.timers.watch(self)

    def _watch(self, exchange: Exchange) -> None:
        self._moved = exchange.started
        self.deadline = self._next_deadline(exchange)
        self._slot.timers.watch(self)

    def _next_deadline(self, exchange: Exchange) -> float:
        """The earliest of what can come due while an exchange is under way; 0 if nothing can."""
        deadline = self._exchange_deadline(exchange)
        if self._expires and (not deadline or self._expires < deadline):
            deadline = self._expires
        if self._probe_at and (not deadline or self._probe_at < deadline):
            deadline = self._probe_at
        return deadline

    def _probe_soon(self) -> None:
        """The client's FIN came while an answer is due: it has said all, or it is gone. Find out which."""
        self._probe_at = monotonic() + _PROBE_AFTER
        self.hasten(self._probe_at)

    def _probe(self, exchange: Exchange, now: float) -> bool:
        """Whether the client is gone. A client that closed altogether resets the connection when bytes come; one that
        closed only its half skips an interim response, as every client must (RFC 9110 §15.2). So one is sent."""
        self._probe_at = 0.0
        if self._probed:
            return was_reset(self.transport.get_extra_info("socket"))
        if not exchange.response_started and not exchange.head.http10:  # else writing tells, or nothing can
            self._probed = True
            self.transport.write(_PROBE)
            self._probe_at = now + _PROBE_ANSWER
        return False

    def hasten(self, deadline: float) -> None:
        if not self.deadline or deadline < self.deadline:
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
        elif self._on_exchange_deadline(exchange, now):
            pass
        elif self._probe_at and self._probe_at <= now and self._probe(exchange, now):
            self.transport.abort()
        else:
            if self._expires and self._expires <= now:
                self._expires = 0.0
                self.closing = True  # with this answer, which says so if it has not begun
            self.deadline = self._next_deadline(exchange)

    # ---- the end

    def drain(self, now: float) -> None:
        """Close if nothing has been asked for a while; otherwise the next answer says that it is the last."""
        if self.exchange is None and not self.reader.in_head and now - self.idle_since >= _DRAIN_IDLE:
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
        linger = self._slot.state.config.delayed_close_timeout
        self.deadline = self._moved + (linger or _FLUSH_CHECK)
        self._slot.timers.watch(self)
        if linger and (self._error is not None or self._unread) and transport.can_write_eof():
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
        self.deadline = now + (self._slot.state.config.delayed_close_timeout or _FLUSH_CHECK)

    def abort(self) -> None:
        """Break the connection, in the middle of an answer. Where only the connection's end tells the answer's, a
        reset tells that this is not it."""
        self._lingering = True
        if self._until_close:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
