"""The worker's whole: applies what the agent sends, keeps listeners and clusters in line with it, drains, reports."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from time import monotonic

from proxy.cluster.manager import ClusterManager
from proxy.cluster.state import ClusterState
from proxy.config.listener import Listener
from proxy.config.model import Address, DownstreamTls, UpstreamTls
from proxy.config.snapshot import Delta, Snapshot, apply
from proxy.telemetry.counters import Counters
from proxy.worker import channel, tls
from proxy.worker.listener import ListenerSlot
from proxy.worker.log_file import LogFiles
from proxy.worker.pool import Pool
from proxy.worker.splice import Pipes
from proxy.worker.tables import ListenerState, Transport
from proxy.worker.tcp import RETIRE_SECONDS, TcpSlot, TcpState
from proxy.worker.timers import Timers

log = logging.getLogger("proxy.worker")

_STATS_SECONDS = 1.0
_DRAIN_CHECK = 0.1
_ENDPOINTS = {"assignments", "health"}
"""The kinds of a snapshot that listeners do not look at."""


@dataclass(slots=True)
class _Plan:
    """An update, compiled: `transports` by cluster; by listener `states` or `tcp_states`, and those `moved` to another
    socket or protocol."""

    snapshot: Snapshot
    contexts: dict[object, tls.Context]
    clusters: dict[str, ClusterState]
    transports: dict[str, tuple[Transport | None, Transport | None]] = field(default_factory=dict)
    states: dict[str, ListenerState] = field(default_factory=dict)
    tcp_states: dict[str, TcpState] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)


class Worker:
    """One worker process. `send` hands a message to the agent; `stop` ends the process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[channel.Message], None],
        stop: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._stop = stop
        self.counters = Counters()
        self._timers = Timers(loop)
        self._pool = Pool(loop, self.counters, self._timers)
        self._files = LogFiles(loop, self.counters)
        self._keys = tls.Keys()
        self._sockets: dict[str, socket.socket] = {}
        self._snapshot = Snapshot()
        self._clusters = ClusterManager(self.counters, random)
        self._pipes = Pipes()
        self._slots: dict[str, ListenerSlot | TcpSlot] = {}
        self._retired: list[ListenerSlot | TcpSlot] = []  # out of the configuration, and not done yet
        self._contexts: dict[object, tls.Context] = {}
        self._workers = 1
        self._frozen = False
        self._drain_until = 0.0
        self._reported: tuple[tuple[channel.MetricKey, float], ...] = ()
        self._stats_handle = loop.call_later(_STATS_SECONDS, self._report)

    # ---- messages

    def handle(self, message: channel.Message, fd: int | None) -> None:
        """Act on one message of the agent; `fd` is the descriptor that came with it."""
        match message:
            case channel.Listen(address):
                assert fd is not None
                old = self._sockets.pop(address, None)
                if old is not None:
                    old.close()
                self._sockets[address] = sock = socket.socket(fileno=fd)
                sock.setblocking(False)
            case channel.Key(name, key_id):
                assert fd is not None
                self._keys.put(name, key_id, fd)
            case channel.Update(version, delta):
                self._send(channel.Applied(version, self._update(delta)))
            case channel.Flush(id_):
                self._send(self._stats(id_))
            case channel.Readmit(name, address):
                self._readmit(name, address)
            case channel.Drain(seconds):
                self._drain(seconds)
            case channel.Workers(count):
                self._workers = count
            case channel.LogLevel(level):
                logging.getLogger("proxy").setLevel(level.upper())

    def _readmit(self, name: str, address: Address) -> None:
        cluster = self._clusters.clusters.get(name)
        endpoint = cluster.endpoints.get(address) if cluster is not None else None
        if cluster is not None and endpoint is not None:
            self._pool.outliers.readmit(cluster, endpoint)

    def _update(self, delta: Delta) -> str | None:
        """Apply a delta whole, or nothing of it. Returns what is wrong."""
        try:
            plan = self._prepare(delta)
        except Exception as error:  # whatever it is, the configuration in force stays
            log.error("update refused: %s", error, exc_info=not isinstance(error, LookupError | OSError | ValueError))
            self._files.keep(_log_paths(self._snapshot))
            return f"{type(error).__name__}: {error}"
        try:
            self._commit(plan, delta)
        except Exception:  # nothing here depends on what the update says, so this is a bug
            log.exception("an update came to half; a worker with the whole of it must take over")
            os._exit(1)
        if not self._frozen:
            # What is configured lives as long as the process: keep it out of every later collection.
            self._frozen = True
            gc.collect()
            gc.freeze()
        return None

    def _prepare(self, delta: Delta) -> _Plan:
        """Everything that can fail, before anything changes. Raises what is wrong."""
        snapshot = apply(self._snapshot, delta)
        contexts = self._build_contexts(snapshot)
        clusters = self._clusters.prepare(snapshot)
        plan = _Plan(snapshot, contexts, clusters)
        if not delta.changed.keys().isdisjoint(("clusters", "certificates", "bundles")):
            for name, cluster in snapshot.clusters.items():
                http1, http2 = tls.by_protocol(cluster)
                plan.transports[name] = self._transport(plan, http1), self._transport(plan, http2)
        if delta.changed.keys() - _ENDPOINTS or delta.removed.keys() - _ENDPOINTS:
            for listener in snapshot.listeners.values():
                if listener.filter_chain.tcp is not None:
                    plan.tcp_states[listener.name] = self._tcp_state(plan, listener)
                else:
                    plan.states[listener.name] = self._listener_state(plan, listener)
            for listener in snapshot.listeners.values():
                before = self._snapshot.listeners.get(listener.name)
                if before is None or before.address != listener.address or _is_tcp(before) != _is_tcp(listener):
                    if str(listener.address) not in self._sockets:
                        raise LookupError(f"listener {listener.name!r}: no socket for {listener.address}")
                    plan.moved.append(listener.name)
        return plan

    def _commit(self, plan: _Plan, delta: Delta) -> None:
        """Take over what was prepared."""
        snapshot = plan.snapshot
        before, self._snapshot = self._snapshot, snapshot
        self._contexts = plan.contexts
        for name, transports in plan.transports.items():
            plan.clusters[name].transport, plan.clusters[name].http2_transport = transports
        for endpoint in self._clusters.apply(snapshot, delta, plan.clusters):
            self._pool.retire(endpoint)
        self._keys.keep(snapshot.certificates)
        if plan.states or plan.tcp_states or before.listeners.keys() - snapshot.listeners.keys():
            self._update_listeners(plan, before)

    def close_files(self) -> None:
        """Write what waits for the access logs: the process ends."""
        self._files.close()

    # ---- TLS

    def _build_contexts(self, snapshot: Snapshot) -> dict[object, tls.Context]:
        """One context for all clusters, and one for all listeners, that agree on certificate, trust and ALPN."""
        contexts: dict[object, tls.Context] = {}
        key_ids = {name: certificate.key_id for name, certificate in snapshot.certificates.items()}
        for listener in snapshot.listeners.values():
            down = listener.filter_chain.tls
            if down is not None:
                key = self._context_key(snapshot, down)
                if key not in contexts:
                    known = self._contexts.get(key)
                    contexts[key] = known or tls.server_context(down, key_ids, snapshot.bundles, self._keys)
        for cluster in snapshot.clusters.values():
            for up in tls.by_protocol(cluster):
                if up is not None:
                    key = self._context_key(snapshot, up)
                    if key not in contexts:
                        known = self._contexts.get(key)
                        contexts[key] = known or tls.client_context(up, key_ids, snapshot.bundles, self._keys)
        return contexts

    @staticmethod
    def _context_key(snapshot: Snapshot, config: DownstreamTls | UpstreamTls) -> object:
        certificate = snapshot.certificates[config.certificate] if config.certificate is not None else None
        bundle = snapshot.bundles[config.validation.trusted_ca] if config.validation is not None else None
        requires = config.require_client_certificate if isinstance(config, DownstreamTls) else None
        return type(config), certificate, bundle, requires, config.alpn_protocols

    def _transport(self, plan: _Plan, config: UpstreamTls | None) -> Transport | None:
        if config is None:
            return None
        context = plan.contexts[self._context_key(plan.snapshot, config)]
        return Transport(context, config.sni, tls.verifier(config.validation))

    # ---- listeners

    def _update_listeners(self, plan: _Plan, before: Snapshot) -> None:
        snapshot = plan.snapshot
        gone = before.listeners.keys() - snapshot.listeners.keys()
        for name in [*gone, *(name for name in plan.moved if name in self._slots)]:
            http = before.listeners[name].filter_chain.http
            slot = self._slots.pop(name)
            slot.retire(http.drain_timeout if http is not None else RETIRE_SECONDS)
            self._retired = [*(one for one in self._retired if one.busy), slot]
        for name in (*plan.states, *plan.tcp_states):
            known = self._slots.get(name)
            if isinstance(known, ListenerSlot):
                known.state = plan.states[name]
            elif isinstance(known, TcpSlot):
                known.state = plan.tcp_states[name]
            else:
                self._slots[name] = slot = self._slot(plan, name)
                if not self._drain_until:
                    slot.start()
        addresses = {str(listener.address) for listener in snapshot.listeners.values()}
        for address in self._sockets.keys() - addresses:
            self._sockets.pop(address).close()
        self._files.keep(_log_paths(snapshot))

    def _slot(self, plan: _Plan, name: str) -> ListenerSlot | TcpSlot:
        sock = self._sockets[str(plan.snapshot.listeners[name].address)].dup()
        if name in plan.states:
            return ListenerSlot(self._loop, sock, plan.states[name], self.counters, self._timers)
        return TcpSlot(self._loop, sock, plan.tcp_states[name], self.counters, self._timers, self._pipes)

    def _listener_state(self, plan: _Plan, listener: Listener) -> ListenerState:
        snapshot = plan.snapshot
        http, down = listener.filter_chain.http, listener.filter_chain.tls
        assert http is not None
        known = self._slots.get(listener.name)
        routes = http.route_config if http.route_config is not None else snapshot.routes[http.rds or ""]
        return ListenerState(
            listener,
            routes,
            plan.clusters,
            None if down is None else plan.contexts[self._context_key(snapshot, down)],
            tls.verifier(None if down is None else down.validation),
            "" if down is None else snapshot.certificates[down.certificate].uri_san,
            self.counters,
            self._pool,
            self._files,
            known.state if isinstance(known, ListenerSlot) else None,
            self._workers,
        )

    def _tcp_state(self, plan: _Plan, listener: Listener) -> TcpState:
        down = listener.filter_chain.tls
        return TcpState(
            listener,
            plan.clusters,
            None if down is None else plan.contexts[self._context_key(plan.snapshot, down)],
            tls.verifier(None if down is None else down.validation),
            self.counters,
            self._pool,
            self._files,
        )

    # ---- reports and the end

    def _stats(self, id_: int) -> channel.Stats:
        counters, gauges, histograms = self.counters.take()
        return channel.Stats(id_, counters, gauges, histograms, self._clusters.ejected())

    def _report(self) -> None:
        self._stats_handle = self._loop.call_later(_STATS_SECONDS, self._report)
        stats = self._stats(0)
        if stats.counters or stats.gauges != self._reported:
            self._reported = stats.gauges
            self._send(stats)

    def _drain(self, seconds: float) -> None:
        log.info(
            "draining seconds=%g connections=%d",
            seconds,
            sum(len(slot.connections) for slot in self._slots.values()),
        )
        self._drain_until = monotonic() + seconds
        self._drain_step()

    def _drain_step(self) -> None:
        now = monotonic()
        for slot in self._slots.values():
            slot.drain(now)
        if now >= self._drain_until or not any(slot.busy for slot in (*self._slots.values(), *self._retired)):
            self._end()
        else:
            self._loop.call_later(_DRAIN_CHECK, self._drain_step)

    def _end(self) -> None:
        """Break what is left. Connections hear of their end in the loop's next turn: only then are their requests
        counted and logged."""
        self._stats_handle.cancel()
        for slot in (*self._slots.values(), *self._retired):
            slot.close()
        for sock in self._sockets.values():
            sock.close()
        self._loop.call_soon(self._last)

    def _last(self) -> None:
        self._timers.close()
        self.close_files()
        self._send(self._stats(0))
        self._stop()


def _is_tcp(listener: Listener) -> bool:
    return listener.filter_chain.tcp is not None


def _log_paths(snapshot: Snapshot) -> set[str]:
    chains = (listener.filter_chain for listener in snapshot.listeners.values())
    return {entry.path for chain in chains for entry in chain.access_logs}
