"""A listener that relays bytes (TcpProxy): what a connection needs, computed once per snapshot; and its connections."""

from __future__ import annotations

import asyncio
import socket
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, Final

from proxy.cluster.state import ClusterState
from proxy.config.listener import Listener
from proxy.config.model import Address
from proxy.telemetry.counters import Counters
from proxy.worker.acceptor import MAX_HANDSHAKES, Accepted, Acceptor
from proxy.worker.log_file import LogFiles
from proxy.worker.peer import Peer
from proxy.worker.pool import Pool
from proxy.worker.splice import Pipes
from proxy.worker.tcp_connection import TcpConnection
from proxy.worker.timers import Timers
from proxy.worker.tls import Context

RETIRE_SECONDS: Final = 600.0
"""How long connections of a listener that is gone may go on (Envoy: --drain-time-s)."""


class TcpState:
    """One listener, compiled."""

    __slots__ = (
        "_bounds",
        "_clusters",
        "config",
        "connections_total",
        "context",
        "counters",
        "handshake_timeout",
        "handshakes",
        "idle_timeouts",
        "loggers",
        "max_durations",
        "name",
        "pool",
        "requires_peer",
        "rx_bytes",
        "tx_bytes",
        "verify",
    )

    def __init__(
        self,
        listener: Listener,
        clusters: dict[str, ClusterState],
        context: Context | None,
        verify: Callable[[Peer], None],
        counters: Counters,
        pool: Pool,
        files: LogFiles,
    ) -> None:
        """Raises OSError (a log file), KeyError (a cluster that does not exist)."""
        config = listener.filter_chain.tcp
        assert config is not None
        name = listener.name
        self.name = name
        self.config = config
        self.context = context
        self.verify = verify
        self.requires_peer = context is not None and context.requires
        self.handshake_timeout = listener.filter_chain.transport_socket_connect_timeout or 15.0
        self.counters = counters
        self.pool = pool
        self._clusters = [clusters[entry.name] for entry in config.clusters]
        self._bounds = list(accumulate(entry.weight for entry in config.clusters))
        self.connections_total = counters.slot("downstream_cx_total", listener=name)
        self.handshakes = counters.slot("downstream_tls_handshake_total", listener=name)
        self.idle_timeouts = counters.slot("downstream_cx_idle_timeout_total", listener=name)
        self.max_durations = counters.slot("downstream_cx_max_duration_reached_total", listener=name)
        self.rx_bytes = counters.slot("downstream_cx_rx_bytes_total", listener=name)
        self.tx_bytes = counters.slot("downstream_cx_tx_bytes_total", listener=name)
        self.loggers = [files.logger(log) for log in config.access_logs]

    def target(self, draw: float) -> ClusterState:
        """A cluster by weight; `draw` is uniform in [0, 1)."""
        if len(self._clusters) == 1:
            return self._clusters[0]
        return self._clusters[bisect_right(self._bounds, int(draw * self._bounds[-1]))]


class TcpSlot(Acceptor):
    """One listener of one worker. A connection keeps the state that it began with; `state` is swapped by updates."""

    __slots__ = ("connections", "greeting", "pipes", "state")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        state: TcpState,
        counters: Counters,
        timers: Timers,
        pipes: Pipes,
    ) -> None:
        super().__init__(loop, sock, state.name, counters, timers)
        self.state = state
        self.pipes = pipes
        self.connections: set[TcpConnection] = set()
        self.greeting = 0  # handshakes with clients under way

    def open(self) -> Iterable[Accepted]:
        return self.connections

    @property
    def busy(self) -> bool:
        return bool(self.connections)

    def take(self, sock: socket.socket, peer: Any) -> None:
        if self.greeting >= MAX_HANDSHAKES:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = str(Address(peer[0], peer[1])) if isinstance(peer, tuple) else ""
        connection = TcpConnection(self, self._loop, sock, address)
        self.connections.add(connection)
        self.counters.values[self.state.connections_total] += 1
        connection.start()
