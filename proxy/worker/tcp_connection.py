"""One relayed TCP connection, from accept to its one access-log record.

Handshake with the client, connect, handshake with the upstream, relay: callbacks on non-blocking sockets, with a
deadline in the worker's wheel; no Task, no transport. Nothing is read of a client before its upstream is connected: a
failed attempt loses nothing, and the next endpoint can be tried. The flags in the log are those of Envoy: docs/tcp.md.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy import errors
from proxy.cluster.state import ClusterState, Endpoint
from proxy.worker import tls
from proxy.worker.peer import Peer
from proxy.worker.tcp_leg import Leg, TlsLeg
from proxy.worker.tcp_record import TcpRecord
from proxy.worker.tcp_relay import Direction, Relay

if TYPE_CHECKING:
    from proxy.worker.tables import Transport
    from proxy.worker.tcp import TcpSlot, TcpState

log = logging.getLogger("proxy.worker.tcp")

_GREETING: Final = 0
_CONNECTING: Final = 1
_RELAYING: Final = 2
_ENDED: Final = 3

UPSTREAM_RESET: Final = "UR"
MAX_DURATION: Final = "DT"
"""Flags that only a connection can have; the rest are in proxy.errors."""


class TcpConnection(Relay):
    """See the module's text."""

    __slots__ = (
        "_counted",
        "_down",
        "_from_client",
        "_from_upstream",
        "_max_until",
        "_phase",
        "_reader",
        "_slot",
        "_state",
        "_tried",
        "_up",
        "_writer",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "cluster",
        "details",
        "downstream_address",
        "endpoint",
        "flags",
        "peer_uri_san",
        "started",
    )

    def __init__(self, slot: TcpSlot, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: str) -> None:
        state = slot.state
        super().__init__(loop, slot.counters, slot.pipes)
        self._slot = slot
        self._state: TcpState = state
        self.started = self.moved
        self.flags = ""
        self.details = ""
        self.peer_uri_san = ""
        self.attempts = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.downstream_address = address
        self.cluster: ClusterState | None = None
        self.endpoint: Endpoint | None = None
        self._counted = False  # among the cluster's and the endpoint's connections
        self._tried: tuple[Endpoint, ...] = ()
        self._up: Leg | None = None
        self._from_client: Direction | None = None
        self._from_upstream: Direction | None = None
        self._reader = self._writer = -1
        duration = state.config.max_downstream_connection_duration
        self._max_until = self.started + duration if duration else 0.0
        self._phase = _GREETING
        context = state.context
        self._down = Leg(sock) if context is None else TlsLeg(sock, context, server_name=None)

    # ---- the client

    def start(self) -> None:
        """Called once, when the connection has been accepted."""
        if self._down.plain:
            self._connect()
        else:
            self._slot.greeting += 1
            self._set_deadline(self.started + self._state.handshake_timeout)
            self._greet()

    def _greet(self) -> None:
        leg, state = self._down, self._state
        try:
            if not leg.handshake():
                self._await(leg, self._greet)
                return
            assert isinstance(leg, TlsLeg)
            peer = Peer(leg.ssl_object, state.context is not None and state.context.verifies)
            if peer.presented or state.requires_peer:
                state.verify(peer)
        except Exception as error:  # whatever it is: who has not passed does not get in
            self._refuse(error)
            return
        self._unwatch()
        self.peer_uri_san = peer.identity
        state.counters.values[state.handshakes] += 1
        self._connect()

    def _greeted(self) -> None:
        if self._phase == _GREETING and not self._down.plain:
            self._slot.greeting -= 1

    def _refuse(self, error: Exception) -> None:
        self._slot.refused(self.downstream_address, error)
        self.details = str(error)
        self._finish()  # no reset: it could overtake the alert that says why

    # ---- the upstream

    def _connect(self) -> None:
        """Pick an endpoint, within the cluster's limits, and connect to it."""
        if self._phase == _ENDED:
            return
        self._greeted()
        self._phase = _CONNECTING
        cluster = self.cluster
        if cluster is None:
            cluster = self.cluster = self._state.target(random())
        values = self.counters.values
        if cluster.connections >= cluster.config.circuit_breakers.max_connections:
            values[self.counters.slot("upstream_cx_overflow_total", cluster=cluster.name)] += 1
            self._fail(errors.OVERFLOW.flag, f"cluster {cluster.name}: max_connections")
            return
        endpoint = cluster.picker.pick(self._tried)
        if endpoint is None:
            values[self.counters.slot("upstream_cx_none_healthy_total", cluster=cluster.name)] += 1
            self._fail(errors.NO_HEALTHY_UPSTREAM.flag, f"cluster {cluster.name}: no healthy endpoint")
            return
        self.attempts += 1
        self.endpoint = endpoint
        cluster.connections += 1
        endpoint.connections += 1
        endpoint.active += 1
        self._counted = True
        self._set_deadline(monotonic() + cluster.config.connect_timeout)
        address, transport = endpoint.address, cluster.transport
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        except OSError as error:  # out of descriptors: our fault, not the endpoint's
            self._fail(errors.CONNECT_FAILURE.flag, str(error))
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        leg = Leg(sock) if transport is None else TlsLeg(sock, transport.context, server_name=transport.sni)
        self._up = leg
        code = sock.connect_ex((address.host, address.port))
        if code == errno.EINPROGRESS:
            self._writer = leg.fd
            self.loop.add_writer(leg.fd, self._on_connected)
        else:
            self._after_connect(code)

    def _on_connected(self) -> None:
        assert self._up is not None
        self._after_connect(self._up.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _after_connect(self, code: int) -> None:
        self._unwatch()
        if code:
            self._attempt_failed(OSError(code, os.strerror(code)))
        else:
            self._greet_upstream()

    def _greet_upstream(self) -> None:
        leg, cluster = self._up, self.cluster
        assert leg is not None
        assert cluster is not None
        try:
            if not leg.handshake():
                self._await(leg, self._greet_upstream)
                return
            if isinstance(leg, TlsLeg):
                transport: Transport = cluster.transport
                peer = Peer(leg.ssl_object, transport.context.verifies)
                transport.verify(peer)
                identity = peer.identity if transport.verified else ""
                slot = self.counters.slot("upstream_tls_handshake_total", cluster=cluster.name, peer=identity)
                self.counters.values[slot] += 1
        except Exception as error:  # whatever it is: who has not passed does not get in
            self._attempt_failed(error)
            return
        self._relay()

    def _attempt_failed(self, error: Exception) -> None:
        """No connection to this endpoint: count it, and try another while the listener allows it."""
        cluster, endpoint, leg = self.cluster, self.endpoint, self._up
        assert cluster is not None
        assert endpoint is not None
        values = self.counters.values
        values[cluster.connect_failures] += 1
        timeout = isinstance(error, TimeoutError)
        if timeout:
            values[self.counters.slot("upstream_cx_connect_timeout_total", cluster=cluster.name)] += 1
        if leg is not None and not leg.plain and not isinstance(error, ConnectionRefusedError):
            self._tls_failed(cluster, endpoint, error)
        self._let_go()
        self._state.pool.outliers.failed(cluster, endpoint, 503)
        self.deadline = 0.0
        if endpoint not in self._tried:
            self._tried += (endpoint,)
        self._flag(errors.CONNECT_FAILURE.flag)
        reason = f"no connection within {cluster.config.connect_timeout:g}s" if timeout else str(error)
        self.details = f"{endpoint.text}: {reason}"
        if self.attempts < self._state.config.max_connect_attempts:
            self.loop.call_soon(self._connect)
        else:
            values[self.counters.slot("upstream_cx_connect_attempts_exceeded_total", cluster=cluster.name)] += 1
            self._fail(errors.RETRY_LIMIT, self.details)

    def _tls_failed(self, cluster: ClusterState, endpoint: Endpoint, error: BaseException) -> None:
        name, reason = cluster.name, tls.reason(error)
        self.counters.values[self.counters.slot("upstream_tls_error_total", cluster=name, reason=reason)] += 1
        log.warning("TLS to upstream failed cluster=%s endpoint=%s reason=%s: %s", name, endpoint.text, reason, error)

    def _let_go(self) -> None:
        """Of the endpoint: the connection to it is none any more."""
        self._unwatch()
        leg, self._up = self._up, None
        if leg is not None:
            leg.reset()
        self._uncount()

    def _uncount(self) -> None:
        cluster, endpoint = self.cluster, self.endpoint
        if self._counted and cluster is not None and endpoint is not None:
            self._counted = False
            cluster.connections -= 1
            endpoint.connections -= 1
            endpoint.active -= 1

    # ---- both

    def _relay(self) -> None:
        cluster, endpoint, state, up = self.cluster, self.endpoint, self._state, self._up
        assert cluster is not None
        assert endpoint is not None
        assert up is not None
        self._unwatch()
        self._phase = _RELAYING
        if cluster.outlier is not None:
            state.pool.outliers.connected(cluster, endpoint)
        counters = self.counters
        counters.values[cluster.connections_total] += 1
        upstream_rx = counters.slot("upstream_cx_rx_bytes_total", cluster=cluster.name)
        upstream_tx = counters.slot("upstream_cx_tx_bytes_total", cluster=cluster.name)
        from_client = Direction(self, self._down, up, state.rx_bytes, upstream_tx)
        from_upstream = Direction(self, up, self._down, upstream_rx, state.tx_bytes)
        self._from_client, self._from_upstream = from_client, from_upstream
        self.moved = now = monotonic()
        self._set_deadline(self._next_deadline(now))
        from_client.start()
        if not self._has_ended():
            from_upstream.start()

    def on_end(self) -> None:
        """One direction has ended in order; when both have, the connection is over."""
        from_client, from_upstream = self._from_client, self._from_upstream
        if from_client is not None and from_upstream is not None and from_client.done and from_upstream.done:
            self._finish()

    def on_broken(self, leg: Leg, error: OSError) -> None:
        """A reset, or broken TLS: the other side must not take what it has for the whole."""
        cluster, endpoint, upstream = self.cluster, self.endpoint, self._from_upstream
        assert cluster is not None
        assert endpoint is not None
        if leg is self._up:
            if upstream is not None and not upstream.received and tls.refuses_us(error):
                self._tls_failed(cluster, endpoint, error)
                self._state.pool.outliers.failed(cluster, endpoint, 503)
                self._flag(errors.CONNECT_FAILURE.flag)
            else:
                self._flag(UPSTREAM_RESET)
            self.details = f"{endpoint.text}: {error}"
        else:
            self.details = f"client: {error}"
        self._finish(reset=True)

    # ---- time

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        self._slot.timers.watch(self)

    def _next_deadline(self, now: float) -> float:
        idle, until = self._state.config.idle_timeout, self._max_until
        if idle and until:
            return min(self.moved + idle, until)
        return self.moved + idle if idle else until

    def on_deadline(self, now: float) -> None:
        """See worker.timers."""
        state = self._state
        idle = state.config.idle_timeout
        if self._phase == _GREETING:
            self._refuse(TimeoutError(f"no TLS handshake within {state.handshake_timeout:g}s"))
        elif self._phase == _CONNECTING:
            self._attempt_failed(TimeoutError())
        elif self._max_until and self._max_until <= now:
            self.counters.values[state.max_durations] += 1
            self._flag(MAX_DURATION)
            self.details = "max_downstream_connection_duration"
            self.abort()
        elif idle and self.moved + idle <= now:
            self.counters.values[state.idle_timeouts] += 1
            self.details = "idle_timeout"
            self.abort()
        else:
            self.deadline = self._next_deadline(now)

    # ---- the end

    def drain(self, now: float) -> None:
        """Nobody can tell when a stream of bytes may be cut: it runs until it ends or the drain time does."""

    def abort(self) -> None:
        """Close both sides; with a reset if there are bytes that did not get through."""
        from_client, from_upstream = self._from_client, self._from_upstream
        self._finish(
            reset=(from_client is not None and from_client.waiting)
            or (from_upstream is not None and from_upstream.waiting)
        )

    def _fail(self, flag: str, details: str) -> None:
        """There will be no upstream. A reset, so that nobody takes it for an empty answer."""
        self._flag(flag)
        self.details = details
        self._finish(reset=True)

    def _flag(self, flag: str) -> None:
        if flag not in self.flags.split(","):
            self.flags = f"{self.flags},{flag}" if self.flags else flag

    def _has_ended(self) -> bool:
        return self._phase == _ENDED

    def _finish(self, reset: bool = False) -> None:
        """Close what is open, count and log. Exactly once."""
        if self._phase == _ENDED:
            return
        self._greeted()
        self._phase = _ENDED
        self.deadline = 0.0
        self._unwatch()
        from_client, from_upstream, up = self._from_client, self._from_upstream, self._up
        self._from_client = self._from_upstream = self._up = None
        if from_client is not None and from_upstream is not None:
            from_client.stop()
            from_upstream.stop()
            self.bytes_received, self.bytes_sent = from_client.received, from_upstream.sent
        for leg in (self._down, up):
            if leg is not None:
                if reset:
                    leg.reset()
                else:
                    leg.close()
        self._uncount()
        state = self._state
        if self.flags:
            for flag in self.flags.split(","):
                self.counters.values[self.counters.slot("response_flags_total", listener=state.name, flag=flag)] += 1
        if state.loggers:
            record = TcpRecord(self)
            for logger in state.loggers:
                logger.log(record)
        self._slot.connections.discard(self)

    # ---- waiting for a handshake or a connect

    def _await(self, leg: Leg, callback: Callable[[], None]) -> None:
        """Call back when the leg is readable, or first writable if something waits to be sent."""
        self._unwatch()
        if leg.unsent:
            self._writer = leg.fd
            self.loop.add_writer(leg.fd, callback)
        else:
            self._reader = leg.fd
            self.loop.add_reader(leg.fd, callback)

    def _unwatch(self) -> None:
        if self._reader >= 0:
            self.loop.remove_reader(self._reader)
        if self._writer >= 0:
            self.loop.remove_writer(self._writer)
        self._reader = self._writer = -1
