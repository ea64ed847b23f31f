"""A connection to an endpoint, HTTP/2: carries many requests at once, until it is told or too old to go on."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.http.h2 import frames
from proxy.http.h2.client import ClientConnection
from proxy.http.h2.stream import Stream
from proxy.worker import tls
from proxy.worker.h2.client_stream import ClientStream
from proxy.worker.h2.link import Link
from proxy.worker.reset import is_open

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.worker.pool import Pool

_FLUSH: Final = 5.0
"""Seconds that an upstream has to take what is written before the connection's end."""


class Http2Upstream(Link):
    """One connection of one endpoint; an asyncio.Protocol, without the base class, which cannot be compiled.

    `trusted`: mutual TLS with a verified peer. `usable`: connected, and in the pool."""

    __slots__ = ("_expires", "_requests", "client", "cluster", "endpoint", "idle_since", "pool", "trusted", "usable")

    def __init__(self, pool: Pool, cluster: ClusterState, endpoint: Endpoint) -> None:
        config = cluster.config
        self.client = ClientConnection(config.http2, config.max_response_headers_bytes, config.max_headers_count)
        super().__init__(self.client, config.http2, pool.flusher, pool.timers)
        self.pool = pool
        self.cluster = cluster
        self.endpoint = endpoint
        self.trusted = False
        self.usable = False
        self.idle_since = 0.0
        self._requests = 0
        self._expires = monotonic() + config.max_connection_duration if config.max_connection_duration else 0.0

    # ---- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.open(transport)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.ending = True
        self.usable = False
        self._timers.forget(self)
        self.pool.streams.closed(self)
        unsent = self._requests > 0 and not self.client.greeted and tls.refuses_us(exc)
        if unsent and exc is not None:
            self.pool.tls_failed(self, exc)
        self._break_off(self._lost or str(exc or "closed by the peer"), unsent)

    def _break_off(self, text: str, unsent: bool) -> None:
        streams = list(self.client.streams.values())
        self.client.streams.clear()
        reused = self._requests > len(streams)
        for stream in streams:
            stream.reset = frames.CANCEL
            if stream.owner is not None:
                stream.owner.on_lost(reused, f"{self.endpoint.text}: {text}", unsent)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.usable:
            if self.client.going_away and not self.ending:
                self.retire()
            self.pool.streams.serve(self)

    # ---- streams

    @property
    def room(self) -> int:
        """How many requests may begin on it now."""
        # Clients that do not read must not hold up those of others who come later.
        if self.ending or self.transport is None or self.transport.is_closing() or self.client.crowded:
            return 0
        limit = self.cluster.max_requests_per_connection
        room = self.client.room
        if limit and limit - self._requests < room:
            return limit - self._requests
        return room

    @property
    def dead(self) -> bool:
        """Whether the peer has ended or reset it, which may not have been heard of yet."""
        return not is_open(self.transport.get_extra_info("socket"))

    def lend(self, now: float) -> ClientStream:
        """A stream for a request. There must be room."""
        self._requests += 1
        self.ping_if_idle(now)
        return ClientStream(self)

    def over(self) -> None:
        """A request has ended."""
        if not self.usable:
            return
        limit = self.cluster.max_requests_per_connection
        if self.ending or self.client.going_away or (limit and self._requests >= limit) or self.endpoint.removed:
            self.retire()
        if self.closed:
            return
        if not self.client.streams:
            self._rest(monotonic())
        self.pool.streams.serve(self)

    def retire(self) -> None:
        """No request begins on it any more; it closes with the last one."""
        self.ending = True
        self.pool.streams.withdraw(self)
        self.pool.streams.open_for_waiters(self.cluster, self.endpoint)  # who waited for room on it
        if not self.client.streams and not self.closed:
            self.usable = False
            self.close()

    def _accept(self, stream: Stream) -> None:
        """Servers open none: push is off."""

    def _on_broken(self, code: int, text: str) -> None:
        values, counters = self.pool.counters.values, self.pool.counters
        label = frames.code_name(code).lower()
        values[counters.slot("upstream_http2_error_total", cluster=self.cluster.name, code=label)] += 1
        self.usable = False
        self.pool.streams.withdraw(self)
        streams = list(self.client.streams.values())
        self.client.streams.clear()
        for stream in streams:
            stream.broken = text
            stream.reset = code
            if stream.owner is not None:
                stream.owner.on_stream()

    # ---- time

    def _rest(self, now: float) -> None:
        self.idle_since = now
        if self.cluster.idle_timeout:
            self.due(now + self.cluster.idle_timeout)

    def enter(self) -> None:
        """It is in the pool from now on."""
        self.usable = True
        now = monotonic()
        self._rest(now)
        if self._expires:
            self.due(self._expires)

    def _on_due(self, now: float) -> None:
        if self.closed:
            self.transport.abort()
            return
        idle = self.cluster.idle_timeout
        if self._expires and self._expires <= now:
            self._expires = 0.0
            self.retire()
            return
        if not self.client.streams and idle and self.idle_since + idle <= now:
            self.retire()
            return
        if idle and not self.client.streams:
            self.due(self.idle_since + idle)
        if self._expires:
            self.due(self._expires)

    def _on_closing(self) -> None:
        self._due = 0.0
        self.due(monotonic() + _FLUSH)

    def _say_goodbye(self, code: int, text: str) -> None:
        self.client.close(code, text)
