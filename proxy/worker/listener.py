"""A listener that speaks HTTP: lets TLS happen, and hands the connection to Downstream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

import aiofastnet

from proxy.config.model import Address
from proxy.telemetry.counters import Counters
from proxy.worker import tls
from proxy.worker.acceptor import MAX_HANDSHAKES, Accepted, Acceptor
from proxy.worker.downstream import Downstream
from proxy.worker.h2.downstream import Http2Downstream
from proxy.worker.tables import ListenerState
from proxy.worker.timers import Timers


class ListenerSlot(Acceptor):
    """One listener of one worker. Connections hold on to the slot; `state` is swapped by updates."""

    __slots__ = ("_tasks", "connections", "state")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        state: ListenerState,
        counters: Counters,
        timers: Timers,
    ) -> None:
        super().__init__(loop, sock, state.name, counters, timers)
        self.state = state
        self.connections: set[Downstream | Http2Downstream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        counters.gauge(self._tunnels, "downstream_cx_upgrades_active", listener=state.name)

    def _tunnels(self) -> int:
        return sum([connection.tunnels() for connection in self.connections])

    def open(self) -> Iterable[Accepted]:
        return self.connections

    @property
    def busy(self) -> bool:
        return bool(self.connections or self._tasks)

    def take(self, sock: socket.socket, peer: Any) -> None:
        if len(self._tasks) >= MAX_HANDSHAKES:
            sock.close()
            return
        task = self._loop.create_task(self._serve(sock, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, peer: Any) -> None:
        state = self.state
        address = str(Address(peer[0], peer[1])) if isinstance(peer, tuple) else ""
        options: dict[str, Any] = {}
        if state.context is not None:
            options = {
                "ssl": state.context,
                "ssl_incoming_bio_size": tls.BIO_BYTES,
                "ssl_outgoing_bio_size": tls.BIO_BYTES,
                "ssl_handshake_timeout": state.handshake_timeout,
                # Downstream bounds its own closing; this is for a client that says goodbye and stays.
                "ssl_shutdown_timeout": state.config.stream_idle_timeout or 300.0,
            }
        try:
            await aiofastnet.connect_accepted_socket(
                self._loop,
                lambda: Downstream(self, address),  # type: ignore[type-var]
                sock,
                **options,
            )
        except OSError as error:
            sock.close()
            if state.context is not None:
                self.refused(address, error)
        except BaseException:
            sock.close()
            raise
