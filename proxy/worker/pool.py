"""Connections to endpoints: lends idle ones, opens new ones, queues who must wait. Everything is O(1).

An idle connection is lent by Exchange itself (endpoint.idle, newest first). This file is the rest: no idle one, a
connection given back, a connection lost, an endpoint that fails.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiofastnet

from proxy.cluster.state import ClusterState, Endpoint
from proxy.telemetry.counters import Counters
from proxy.worker import tls
from proxy.worker.h2.flusher import Flusher
from proxy.worker.h2.pool import StreamPool
from proxy.worker.h2.upstream import Http2Upstream
from proxy.worker.outliers import Outliers
from proxy.worker.peer import Peer, PeerError
from proxy.worker.timers import Timers
from proxy.worker.upstream import Upstream

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange
    from proxy.worker.raw_upstream import RawUpstream
    from proxy.worker.recovery import Recovery
    from proxy.worker.tables import Transport

log = logging.getLogger("proxy.worker.pool")


class Pool:
    """The connections of one worker to every endpoint."""

    __slots__ = ("_loop", "_tasks", "counters", "flusher", "outliers", "streams", "timers")

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters, timers: Timers) -> None:
        self._loop = loop
        self.counters = counters
        self.timers = timers
        self._tasks: set[asyncio.Task[None]] = set()
        self.flusher = Flusher(loop)
        self.streams = StreamPool(self)
        self.outliers = Outliers(loop, counters)

    def wait(self, exchange: Exchange, cluster: ClusterState, endpoint: Endpoint) -> None:
        """No idle connection: queue the exchange, first come first served, and open another connection if allowed."""
        limits = cluster.config.circuit_breakers
        if cluster.pending >= limits.max_pending_requests:
            exchange.on_overflow(f"cluster {cluster.name}: max_pending_requests")
            return
        cluster.pending += 1
        exchange.waiting = True
        endpoint.waiters[exchange] = None
        self._serve_waiters(cluster, endpoint)

    def _open(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        cluster.connections += 1
        endpoint.connections += 1
        endpoint.connecting += 1
        task = self._loop.create_task(self._connect(cluster, endpoint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def open_http2(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """Open a connection of HTTP/2."""
        cluster.connections += 1
        endpoint.connections += 1
        task = self._loop.create_task(self._connect_http2(cluster, endpoint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect_http2(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        transport: Transport | None = cluster.http2_transport
        connection = Http2Upstream(self, cluster, endpoint)
        try:
            await self.dial(connection, transport)
            if transport is not None:
                self.identify(connection, transport)
                chosen = connection.transport.get_extra_info("ssl_object").selected_alpn_protocol()
                if chosen != "h2":
                    raise PeerError("alpn", f"does not speak HTTP/2: ALPN chose {chosen or 'nothing'}")
            if connection.transport.is_closing() or connection.closed or connection.client.going_away:
                raise ConnectionError("closed as soon as it was open")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not isinstance(error, OSError | TimeoutError | PeerError):
                log.exception("connecting to %s", endpoint.text)
            self.streams.failed(connection, self.connect_failed(connection, transport, error))
            return
        self.counters.values[cluster.connections_total] += 1
        self.streams.connected(connection)

    def open_raw(self, connection: RawUpstream) -> None:
        """Open a connection that carries one exchange's tunnel and never enters the pool."""
        connection.cluster.connections += 1
        connection.endpoint.connections += 1
        task = self._loop.create_task(connection.open())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        transport: Transport | None = cluster.transport
        connection = Upstream(self, cluster, endpoint)
        try:
            await self.dial(connection, transport)
            if transport is not None:
                self.identify(connection, transport)
        except (OSError, TimeoutError, PeerError) as error:
            self._failed(connection, transport, error)
            return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("connecting to %s", endpoint.text)
            self._failed(connection, transport, error)
            return
        if connection.transport.is_closing():
            self._failed(connection, None, ConnectionError("closed as soon as it was open"))
            return
        endpoint.connecting -= 1
        self.counters.values[cluster.connections_total] += 1
        connection.usable = True
        self.release(connection)

    async def dial(self, connection: Upstream | Http2Upstream, transport: Transport | None) -> None:
        """Connect, and shake hands, within the cluster's connect_timeout. Raises OSError, TimeoutError.

        A handshake is never cancelled: aiofastnet would close the socket under a transport that is still registered
        for it, and whoever gets the descriptor next would lose its events. It has a timeout of its own for that.
        """
        loop, address = self._loop, connection.endpoint.address
        timeout = connection.cluster.config.connect_timeout
        until = monotonic() + timeout
        sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        sock.setblocking(False)
        # Nagle's algorithm holds back a write while one is on its way, and the other side may delay its ACK by 40 ms:
        # with many requests on one connection that is often.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, (address.host, address.port))
        except BaseException:
            sock.close()
            raise
        options: dict[str, Any] = {}
        if transport is not None:
            options = {
                "ssl": transport.context,
                "ssl_incoming_bio_size": tls.BIO_BYTES,
                "ssl_outgoing_bio_size": tls.BIO_BYTES,
                "server_hostname": transport.sni,
                "ssl_handshake_timeout": max(until - monotonic(), 0.001),
            }
        await aiofastnet.create_connection(loop, lambda: connection, sock=sock, **options)  # type: ignore[type-var]

    def identify(self, connection: Upstream | Http2Upstream, transport: Transport) -> None:
        """Verify and note who the peer is. Raises PeerError."""
        peer = Peer(connection.transport.get_extra_info("ssl_object"), transport.context.verifies)
        transport.verify(peer)
        connection.trusted = transport.verified and bool(peer.identity)
        name = connection.cluster.name
        slot = self.counters.slot(
            "upstream_tls_handshake_total", cluster=name, peer=peer.identity if transport.verified else ""
        )
        self.counters.values[slot] += 1

    def _failed(self, connection: Upstream, transport: Transport | None, error: Exception) -> None:
        cluster, endpoint = connection.cluster, connection.endpoint
        endpoint.connecting -= 1
        text = self.connect_failed(connection, transport, error)
        waiter = self._next_waiter(cluster, endpoint)
        if waiter is not None:
            waiter.on_connect_failure(text)
        else:
            self.outliers.failed(cluster, endpoint, 503)  # who waited has given up, and told nobody
        self._serve_waiters(cluster, endpoint)

    def connect_failed(
        self, connection: Upstream | Http2Upstream, transport: Transport | None, error: Exception
    ) -> str:
        """Count off a connection that could not be had. Returns what to say of it."""
        cluster, endpoint = connection.cluster, connection.endpoint
        self.counters.values[cluster.connect_failures] += 1
        if isinstance(error, TimeoutError | ConnectionAbortedError):  # aiofastnet's word for a slow handshake
            text = f"no connection to {endpoint.text} within {cluster.config.connect_timeout:g}s"
        else:
            text = f"{endpoint.text}: {error}"
        if transport is not None and not isinstance(error, ConnectionRefusedError):
            self.tls_failed(connection, error)
        if connection.transport is not None:  # connected, but not to whom we wanted: connection_lost counts it off
            connection.abort()
        else:
            cluster.connections -= 1
            endpoint.connections -= 1
        return text

    def tls_failed(self, connection: Upstream | Http2Upstream, error: BaseException) -> None:
        """Count and say why TLS with an upstream could not be."""
        name, reason = connection.cluster.name, tls.reason(error)
        self.counters.values[self.counters.slot("upstream_tls_error_total", cluster=name, reason=reason)] += 1
        log.warning(
            "TLS to upstream failed cluster=%s endpoint=%s reason=%s: %s", name, connection.endpoint.text, reason, error
        )

    def release(self, connection: Upstream) -> None:
        """An idle connection: to the one who waits longest, else to the idle ones."""
        endpoint = connection.endpoint
        waiter = self._next_waiter(connection.cluster, endpoint)
        if waiter is not None:
            waiter.attach(connection)
            return
        if endpoint.removed:
            connection.abort()
            return
        endpoint.idle[connection] = None
        connection.rest()

    def _next_waiter(self, cluster: ClusterState, endpoint: Endpoint) -> Exchange | None:
        if not endpoint.waiters:
            return None
        waiter: Exchange = endpoint.waiters.popitem(last=False)[0]
        waiter.waiting = False
        cluster.pending -= 1
        return waiter

    def forget(self, exchange: Recovery, cluster: ClusterState, endpoint: Endpoint) -> None:
        """The exchange waits no more."""
        exchange.waiting = False
        if not self.streams.forget(exchange, cluster, endpoint):
            del endpoint.waiters[exchange]
        cluster.pending -= 1

    def closed(self, connection: Upstream) -> None:
        """A connection is gone."""
        connection.endpoint.idle.pop(connection, None)
        self.count_off(connection.cluster, connection.endpoint)

    def count_off(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """One connection less: there is room for another."""
        cluster.connections -= 1
        endpoint.connections -= 1
        self._serve_waiters(cluster, endpoint)
        # Room that is left goes to the endpoints whose waiters found none, oldest first.
        while cluster.starved and cluster.connections < cluster.config.circuit_breakers.max_connections:
            other = next(iter(cluster.starved))
            del cluster.starved[other]
            self._serve_waiters(cluster, other)

    def _serve_waiters(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """Each who still waits must have a connection on its way, as far as the limits allow."""
        self.streams.open_for_waiters(cluster, endpoint)
        if endpoint.connecting < len(endpoint.waiters):
            # Each endpoint may have one connection whatever the limit, or its waiters would never be served.
            if endpoint.connections == 0 or cluster.connections < cluster.config.circuit_breakers.max_connections:
                self._open(cluster, endpoint)
            else:
                cluster.starved[endpoint] = None

    def retire(self, endpoint: Endpoint) -> None:
        """The endpoint is gone from its cluster: close what is idle; what is in use ends with its request."""
        idle, endpoint.idle = endpoint.idle, {}
        for connection in idle:
            connection.abort()
        self.streams.retire(endpoint)
