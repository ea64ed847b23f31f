"""Tunnels through a real worker: configurations, a client that opens one, and upstreams that agree to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.config.listener import AccessLog
from proxy.config.route import ForwardAction, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.config.route import WeightedCluster as Weighted
from proxy.config.snapshot import Snapshot
from tests.support.tcp import FIELDS
from tests.support.worker import snapshot

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE = b"GET /chat HTTP/1.1\r\nhost: app\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n"


def upgrading(port: int, *upstreams: int, log: Path | None = None, **how: Any) -> Snapshot:
    """As snapshot(), with WebSocket passed on."""
    logs = (AccessLog(str(log), tuple(FIELDS.items())),) if log else ()
    http = {"upgrades": frozenset(("websocket",)), "access_logs": logs, **how.pop("http", {})}
    return snapshot(port, *upstreams, http=http, **how)


def connecting(
    port: int,
    *upstreams: int,
    ends: bool,
    domains: tuple[str, ...] = ("*",),
    action: dict[str, Any] | None = None,
    log: Path | None = None,
    **how: Any,
) -> Snapshot:
    """As snapshot(), with a route for CONNECT, which ends here or goes on to the upstream, and one for the rest."""
    logs = (AccessLog(str(log), tuple(FIELDS.items())),) if log else ()
    fields = {"upgrades": (("connect", True),), "ends_connect": ends, **(action or {})}
    forward = ForwardAction((Weighted("app"),), **fields)
    routes = (
        Route(RouteMatch("connect_matcher", ""), forward, "connect"),
        Route(RouteMatch("prefix", "/"), ForwardAction((Weighted("app"),)), "main"),
    )
    configuration = RouteConfiguration("routes", (VirtualHost("all", domains, routes),))
    http = {"route_config": configuration, "access_logs": logs, **how.pop("http", {})}
    return snapshot(port, *upstreams, http=http, **how)


@dataclass
class App:
    """An upstream that answers every head with `answer`; behind an answer that opens a tunnel it echoes, and says
    "bye" when its client has said its last. `ends` has how each tunnel ended."""

    answer: bytes = SWITCHING
    heads: list[bytes] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    ends: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if self.answer.split()[1] == b"101" or (self.heads[-1].startswith(b"CONNECT") and b" 200 " in self.answer):
                break
        await self.echo(reader, writer)

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What stands behind the head; also a handler for CONNECT that ended before."""
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            self.ends.append("reset")
            return
        self.ends.append("end")
        with contextlib.suppress(ConnectionError):
            writer.write(b"bye")
            await writer.drain()


@dataclass
class Tunnel:
    """The client's side; `head` is the answer that opened it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes

    async def exchange(self, data: bytes) -> bytes:
        """Send, and read as much back."""
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), 10)

    async def rest(self) -> bytes:
        """All that comes until the other side ends; b"RESET" behind it when it does so by a reset."""
        got = bytearray()
        try:
            while data := await asyncio.wait_for(self.reader.read(65536), 10):
                got += data
        except ConnectionError:
            got += b"RESET"
        return bytes(got)


@contextlib.asynccontextmanager
async def tunnel(port: int, request: bytes = UPGRADE, **how: Any) -> AsyncIterator[Tunnel]:
    """A connection on which `request` was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **how)
    try:
        writer.write(request)
        yield Tunnel(reader, writer, await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10))
    finally:
        writer.transport.abort()  # whatever is unsent: there may be nobody who takes it
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
