"""A client's connection, HTTP/2: each stream is an exchange; GOAWAY, and what is under way ends in peace."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.http.h2 import frames
from proxy.http.h2.server import ServerConnection
from proxy.http.h2.stream import Stream
from proxy.worker.h2.link import Link
from proxy.worker.h2.server_stream import ServerStream

if TYPE_CHECKING:
    from proxy.worker.listener import ListenerSlot

_LAST_CALL: Final = 1.0
"""Seconds that a client has to answer the PING behind a GOAWAY; what it opens after that is not looked at."""
_FLUSH_CHECK: Final = 1.0


class Http2Downstream(Link):
    """One connection of one listener; an asyncio.Protocol, without the base class, which cannot be compiled.

    Made by the HTTP/1.1 Downstream that the connection began as, which has verified the peer."""

    __slots__ = (
        "_called",
        "_expires",
        "_frame_due",
        "_idle_since",
        "_lingering",
        "_requests",
        "_unsent",
        "address",
        "peer_uri",
        "scheme",
        "server",
        "slot",
        "xfcc",
    )

    def __init__(
        self, slot: ListenerSlot, address: str, peer_uri: str, xfcc: bytes | None, scheme: bytes, expires: float
    ) -> None:
        config = slot.state.config
        self.server = ServerConnection(
            config.http2,
            config.max_request_headers_bytes,
            config.max_headers_count,
            config.headers_with_underscores_action == "ALLOW",
        )
        super().__init__(self.server, config.http2, slot.state.pool.flusher, slot.timers)
        self.slot = slot
        self.address = address
        self.peer_uri = peer_uri
        self.xfcc = xfcc
        self.scheme = scheme
        self._expires = expires
        self._frame_due = 0.0  # when what has begun of a head must be complete (request_headers_timeout)
        self._called = 0.0  # when the first GOAWAY was sent
        self._idle_since = 0.0
        self._lingering = False
        self._requests = 0
        self._unsent = 0

    def open(self, transport: Any) -> None:
        slot = self.slot
        slot.connections.add(self)
        slot.state.counters.values[slot.state.http2_connections] += 1
        super().open(transport)
        self._rest(self._heard)
        if self._expires:
            self.due(self._expires)

    # ---- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        """Never called: the connection was made before it was known to be HTTP/2."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.server.unfinished:
            self._frame_due = 0.0
        elif not self._frame_due and self.slot.state.head_timeout:
            self._frame_due = self._heard + self.slot.state.head_timeout
            self.due(self._frame_due)

    def eof_received(self) -> bool:
        """Without a way back for WINDOW_UPDATE and the rest there is no half-close of a connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.ending = True
        self.slot.connections.discard(self)
        self._break_off()
        self._timers.forget(self)

    def _break_off(self) -> None:
        streams = list(self.server.streams.values())
        self.server.streams.clear()
        for stream in streams:
            if stream.owner is not None:
                stream.owner.on_lost()

    def _on_broken(self, code: int, text: str) -> None:
        slot = self.slot
        values, counters = slot.state.counters.values, slot.state.counters
        label = frames.code_name(code).lower()
        values[counters.slot("downstream_http2_error_total", listener=slot.state.name, code=label)] += 1
        self._break_off()

    # ---- streams

    def _accept(self, stream: Stream) -> None:
        state = self.slot.state
        owner = ServerStream(self, stream)
        stream.owner = owner
        limit = state.max_requests_per_connection
        if limit:
            self._requests += 1
            if self._requests >= limit:
                self._last_call(monotonic())
        owner.begin(state)

    def over(self, now: float) -> None:
        """A stream's exchange has ended."""
        if self.server.streams or self.closed:
            return
        if self.ending and (self.server.last_call_heard or self._called + _LAST_CALL <= now):
            self._end()
        else:
            self._rest(now)

    def tunnels(self) -> int:
        """How many streams carry another protocol."""
        count = 0
        for stream in self.server.streams.values():
            owner = stream.owner
            if owner is not None and owner.exchange is not None and owner.exchange.tunnel:
                count += 1
        return count

    # ---- time

    def _rest(self, now: float) -> None:
        self._idle_since = now
        if self.slot.state.idle_timeout:
            self.due(now + self.slot.state.idle_timeout)

    def _on_due(self, now: float) -> None:
        if self._lingering:
            self._flush_out(now)
            return
        if self._frame_due and self._frame_due <= now:
            self._frame_due = 0.0
            self.fail(frames.ENHANCE_YOUR_CALM, "a field block that does not end in time")
            return
        if self._expires and self._expires <= now and not self.ending:
            self._expires = 0.0
            self._last_call(now)
        idle = self.slot.state.idle_timeout
        streams = self.server.streams
        if self.ending:
            self._advance_end(now)
        elif not streams and idle and self._idle_since + idle <= now:
            self.ending = True
            self._end()
        if self.closed:
            return
        for stream in list(streams.values()):
            owner = stream.owner
            if owner is not None and owner.deadline and owner.deadline <= now:
                owner.on_deadline(now)
        for stream in streams.values():
            owner = stream.owner
            if owner is not None and owner.deadline:
                self.due(owner.deadline)
        if not streams and idle:
            self.due(self._idle_since + idle)
        if self._expires:
            self.due(self._expires)
        if self._frame_due:
            self.due(self._frame_due)

    # ---- the end

    def drain(self, now: float) -> None:
        """The listener ends: GOAWAY in two steps, so that nothing that is on its way is lost (RFC 9113 §6.8)."""
        if self.closed:
            return
        self._last_call(now)
        self._advance_end(now)

    def _last_call(self, now: float) -> None:
        if not self._called:
            self._called = now
            self.ending = True
            self.server.last_call()
            self.flush_soon()
            self.due(now + _LAST_CALL)

    def _advance_end(self, now: float) -> None:
        if self.server.last_call_heard or self._called + _LAST_CALL <= now:
            self.server.close(frames.NO_ERROR, "")
            self.flush_soon()
            if not self.server.streams:
                self._end()

    def _end(self) -> None:
        """Nothing is under way any more."""
        self.close()

    def _say_goodbye(self, code: int, text: str) -> None:
        self.server.close(code, text)

    def _on_closing(self) -> None:
        """Closing takes time: a slow client gets what is written, as long as it takes something of it."""
        self._lingering = True
        self._unsent = self.transport.get_write_buffer_size()
        self._due = 0.0
        self.due(monotonic() + (self.slot.state.config.delayed_close_timeout or _FLUSH_CHECK))

    def _flush_out(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent == self._unsent:
            self.transport.abort()
        else:
            self._unsent = unsent
            self.due(now + (self.slot.state.config.delayed_close_timeout or _FLUSH_CHECK))
