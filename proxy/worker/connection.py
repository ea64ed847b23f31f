"""A client's connection while it lives: its flow, its timeouts and its end. downstream.py is what it says."""

from __future__ import annotations

import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy import errors
from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.request import RequestReader
from proxy.worker.timers import Timed

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange
    from proxy.worker.listener import ListenerSlot

_RESET: Final = struct.pack("ii", 1, 0)
_LINGER: Final = 1.0
"""Seconds that a closing connection waits for the client to read the last answer (Envoy: delayed_close_timeout)."""


class ClientConnection(Timed):
    """The base of Downstream. `closing`: no request after the current one."""

    __slots__ = (
        "_error",
        "_lingering",
        "_moved",
        "_read_paused",
        "_slot",
        "_unread",
        "_unsent",
        "_until_close",
        "_write_paused",
        "address",
        "closing",
        "exchange",
        "idle_since",
        "reader",
        "transport",
    )

    def __init__(self, slot: ListenerSlot, address: str) -> None:
        super().__init__()
        config = slot.state.config
        self._slot = slot
        self.address = address
        self.transport: Any = None
        self.reader = RequestReader(config.max_request_headers_bytes, config.max_headers_count)
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.closing = False
        self._error: ProtocolError | None = None
        self._lingering = False
        self._moved = 0.0
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
        """The upstream takes no more for now."""
        self._pause_reading()

    def resume_request(self) -> None:
        """The upstream takes more."""
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
