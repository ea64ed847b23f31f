"""The worker's whole: applies what the agent sends, keeps listeners and clusters in line with it, drains, reports."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
from collections.abc import Callable
from random import random
from time import monotonic

from proxy.cluster.manager import ClusterManager
from proxy.config.listener import Listener
from proxy.config.model import DownstreamTls, UpstreamTls
from proxy.config.snapshot import Delta, Snapshot, apply
from proxy.telemetry.counters import Counters
from proxy.worker import channel, tls
from proxy.worker.listener import ListenerSlot
from proxy.worker.log_file import LogFiles
from proxy.worker.pool import Pool
from proxy.worker.tables import ListenerState, Transport
from proxy.worker.timers import Timers

log = logging.getLogger("proxy.worker")

_STATS_SECONDS = 1.0
_DRAIN_CHECK = 0.1


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
        self._slots: dict[str, ListenerSlot] = {}
        self._contexts: dict[object, ssl.SSLContext] = {}
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
            case channel.Drain(seconds):
                self._drain(seconds)
            case channel.LogLevel(level):
                logging.getLogger("proxy").setLevel(level.upper())

    def _update(self, delta: Delta) -> str | None:
        """Apply a delta whole, or nothing of it. Returns what is wrong."""
        try:
            snapshot = apply(self._snapshot, delta)
            contexts = self._build_contexts(snapshot)
            for listener in snapshot.listeners.values():
                if listener.name not in self._slots and str(listener.address) not in self._sockets:
                    raise LookupError(f"listener {listener.name!r}: no socket for {listener.address}")
                for access_log in listener.filter_chain.http.access_logs:
                    self._files.open(access_log.path)
        except (LookupError, OSError, ValueError) as error:
            log.error("update refused: %s", error)
            return f"{type(error).__name__}: {error}"
        self._contexts = contexts
        for endpoint in self._clusters.apply(snapshot, delta):
            self._pool.retire(endpoint)
        before, self._snapshot = self._snapshot, snapshot
        if not delta.changed.keys().isdisjoint(("clusters", "certificates", "bundles")):
            for name, cluster in self._clusters.clusters.items():
                cluster.transport = self._transport(snapshot.clusters[name].tls)
        if delta.changed.keys() - {"assignments"} or delta.removed.keys() - {"assignments"}:
            self._update_listeners(before)
        if not self._frozen:
            # What is configured lives as long as the process: keep it out of every later collection.
            self._frozen = True
            gc.collect()
            gc.freeze()
        return None

    # ---- TLS

    def _build_contexts(self, snapshot: Snapshot) -> dict[object, ssl.SSLContext]:
        """One context for all clusters, and one for all listeners, that agree on certificate, trust and ALPN."""
        contexts: dict[object, ssl.SSLContext] = {}
        key_ids = {name: certificate.key_id for name, certificate in snapshot.certificates.items()}
        for listener in snapshot.listeners.values():
            down = listener.filter_chain.tls
            if down is not None:
                key = self._context_key(snapshot, down)
                if key not in contexts:
                    known = self._contexts.get(key)
                    contexts[key] = known or tls.server_context(down, key_ids, snapshot.bundles, self._keys)
        for cluster in snapshot.clusters.values():
            up = cluster.tls
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

    def _transport(self, config: UpstreamTls | None) -> Transport | None:
        if config is None:
            return None
        context = self._contexts[self._context_key(self._snapshot, config)]
        return Transport(context, config.sni, tls.verifier(config.validation))

    # ---- listeners

    def _update_listeners(self, before: Snapshot) -> None:
        snapshot = self._snapshot
        for name in before.listeners.keys() - snapshot.listeners.keys():
            self._slots.pop(name).close()
        for listener in snapshot.listeners.values():
            slot = self._slots.get(listener.name)
            if slot is not None and before.listeners[listener.name].address != listener.address:
                slot.close()
                slot = None
            state = self._listener_state(listener)
            if slot is None:
                sock = self._sockets[str(listener.address)].dup()
                slot = ListenerSlot(self._loop, sock, state, self.counters, self._timers)
                self._slots[listener.name] = slot
                if not self._drain_until:
                    slot.start()
            else:
                slot.state = state
        addresses = {str(listener.address) for listener in snapshot.listeners.values()}
        for address in self._sockets.keys() - addresses:
            self._sockets.pop(address).close()
        self._files.keep(
            {entry.path for listener in snapshot.listeners.values() for entry in listener.filter_chain.http.access_logs}
        )

    def _listener_state(self, listener: Listener) -> ListenerState:
        snapshot = self._snapshot
        http, down = listener.filter_chain.http, listener.filter_chain.tls
        routes = http.route_config if http.route_config is not None else snapshot.routes[http.rds or ""]
        return ListenerState(
            listener,
            routes,
            self._clusters.clusters,
            None if down is None else self._contexts[self._context_key(snapshot, down)],
            tls.verifier(None if down is None else down.validation),
            "" if down is None else snapshot.certificates[down.certificate].uri_san,
            self.counters,
            self._pool,
            self._files,
        )

    # ---- reports and the end

    def _stats(self, id_: int) -> channel.Stats:
        return channel.Stats(id_, *self.counters.take())

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
        if now >= self._drain_until or not any(slot.busy for slot in self._slots.values()):
            self._end()
        else:
            self._loop.call_later(_DRAIN_CHECK, self._drain_step)

    def _end(self) -> None:
        self._stats_handle.cancel()
        self.close()
        self._send(self._stats(0))
        self._stop()

    def close(self) -> None:
        """Break every connection, write the logs."""
        for slot in self._slots.values():
            slot.close()
        for sock in self._sockets.values():
            sock.close()
        self._timers.close()
        self._files.close()
