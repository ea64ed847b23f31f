"""Connections of HTTP/2 to endpoints: who has room for a request, who waits for room, when another is opened.

A request goes to a connection with room; one that finds none waits, within the cluster's limits, first come first
served, and connections are opened as long as those on their way cannot take all who wait.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from proxy.http.h2.client import FIRST_STREAMS
from proxy.http.heads import CONNECT, NO_UPGRADE
from proxy.policy.retry import IDEMPOTENT

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.worker.exchange import Exchange
    from proxy.worker.h2.upstream import Http2Upstream
    from proxy.worker.pool import Pool
    from proxy.worker.recovery import Recovery


def _asks_for_connect(exchange: Exchange) -> bool:
    """Whether it takes extended CONNECT (RFC 8441 §4), which only some offer."""
    return exchange.head.upgrade not in (NO_UPGRADE, CONNECT)


class EndpointStreams:
    """What there is of one endpoint. `free`: connections with room, the fullest use first; `all`: every one.

    `first`: how many streams a new one gets before it says how many it takes: what another said, or the usual."""

    __slots__ = ("all", "connecting", "first", "free", "waiters")

    def __init__(self) -> None:
        self.all: dict[Http2Upstream, None] = {}
        self.free: dict[Http2Upstream, None] = {}
        self.waiters: OrderedDict[Exchange, None] = OrderedDict()
        self.connecting = 0
        self.first = FIRST_STREAMS


class StreamPool:
    """The part of Pool that lends streams."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def of(self, endpoint: Endpoint) -> EndpointStreams:
        """Those of an endpoint."""
        streams: EndpointStreams | None = endpoint.streams
        if streams is None:
            endpoint.streams = streams = EndpointStreams()
        return streams

    def lend(self, exchange: Exchange, cluster: ClusterState, endpoint: Endpoint) -> None:
        """Give the exchange a stream, or have it wait for one."""
        streams = self.of(endpoint)
        awaited = False
        while streams.free:
            connection = next(iter(streams.free))
            if connection.room > 0:
                if not connection.client.streams and exchange.head.method not in IDEMPOTENT and connection.dead:
                    connection.abort()  # what must not be repeated must not be lost on it
                    del streams.free[connection]
                    continue
                awaited = _asks_for_connect(exchange) and not connection.client.greeted
                if awaited:
                    break
                self._hand_over(connection, exchange)
                return
            del streams.free[connection]
        if cluster.pending >= cluster.config.circuit_breakers.max_pending_requests:
            exchange.on_overflow(f"cluster {cluster.name}: max_pending_requests")
            return
        cluster.pending += 1
        exchange.waiting = True
        streams.waiters[exchange] = None
        if not awaited:
            self.open_for_waiters(cluster, endpoint)

    def _hand_over(self, connection: Http2Upstream, exchange: Exchange) -> None:
        if _asks_for_connect(exchange) and not connection.client.peer_connect:
            exchange.on_refused(f"{connection.endpoint.text}: does not offer extended CONNECT")
        else:
            exchange.attach(connection.lend(monotonic()))

    def open_for_waiters(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """Open another connection if those on their way cannot take all who wait, as far as the limits allow."""
        streams: EndpointStreams | None = endpoint.streams
        if streams is None or len(streams.waiters) <= streams.connecting * self._capacity(cluster, streams):
            return
        # Each endpoint may have one connection whatever the limit, or its waiters would never be served.
        if endpoint.connections == 0 or cluster.connections < cluster.config.circuit_breakers.max_connections:
            streams.connecting += 1
            self._pool.open_http2(cluster, endpoint)
        else:
            cluster.starved[endpoint] = None

    def _capacity(self, cluster: ClusterState, streams: EndpointStreams) -> int:
        limit = min(streams.first, cluster.config.http2.max_concurrent_streams)
        per_connection = cluster.max_requests_per_connection
        return min(limit, per_connection) if per_connection else limit

    def connected(self, connection: Http2Upstream) -> None:
        """A connection is there."""
        streams = self.of(connection.endpoint)
        streams.connecting -= 1
        streams.all[connection] = None
        if not connection.client.greeted:
            connection.client.peer_streams = streams.first
        connection.enter()
        if connection.endpoint.removed and not streams.waiters:
            connection.retire()
        else:
            self.serve(connection)
            self.open_for_waiters(connection.cluster, connection.endpoint)

    def failed(self, connection: Http2Upstream, text: str) -> None:
        """A connection could not be had: as many as it would have taken are told."""
        cluster, endpoint = connection.cluster, connection.endpoint
        streams = self.of(endpoint)
        streams.connecting -= 1
        if not streams.waiters:
            self._pool.outliers.failed(cluster, endpoint, 503)  # who waited has given up, and told nobody
        # Those who try again wait anew, behind them.
        for _ in range(min(self._capacity(cluster, streams), len(streams.waiters))):
            waiter = self._next_waiter(streams, cluster)
            if waiter is None:
                break
            waiter.on_connect_failure(text)
        self.open_for_waiters(cluster, endpoint)

    def serve(self, connection: Http2Upstream) -> None:
        """The connection may have room: for those who wait, or for later."""
        streams, client = self.of(connection.endpoint), connection.client
        if client.peer_streams != streams.first and client.greeted:
            streams.first = max(1, min(client.peer_streams, FIRST_STREAMS))
        if streams.waiters:
            while connection.room > 0:
                if not connection.client.greeted and streams.waiters and _asks_for_connect(next(iter(streams.waiters))):
                    break  # the SETTINGS will tell whether it may be asked
                waiter = self._next_waiter(streams, connection.cluster)
                if waiter is None:
                    break
                self._hand_over(connection, waiter)
        if connection not in streams.free and connection.usable and connection.room > 0:
            streams.free[connection] = None

    def _next_waiter(self, streams: EndpointStreams, cluster: ClusterState) -> Exchange | None:
        if not streams.waiters:
            return None
        waiter: Exchange = streams.waiters.popitem(last=False)[0]
        waiter.waiting = False
        cluster.pending -= 1
        return waiter

    def forget(self, exchange: Recovery, cluster: ClusterState, endpoint: Endpoint) -> bool:
        """The exchange waits no more. False if it did not wait here."""
        streams: EndpointStreams | None = endpoint.streams
        if streams is None or exchange not in streams.waiters:
            return False
        del streams.waiters[exchange]  # type: ignore[arg-type]
        return True

    def withdraw(self, connection: Http2Upstream) -> None:
        """It takes no more requests."""
        self.of(connection.endpoint).free.pop(connection, None)

    def closed(self, connection: Http2Upstream) -> None:
        """A connection is gone."""
        streams = self.of(connection.endpoint)
        streams.free.pop(connection, None)
        streams.all.pop(connection, None)
        self._pool.count_off(connection.cluster, connection.endpoint)

    def retire(self, endpoint: Endpoint) -> None:
        """The endpoint is gone from its cluster."""
        streams: EndpointStreams | None = endpoint.streams
        if streams is not None:
            for connection in list(streams.all):
                connection.retire()
