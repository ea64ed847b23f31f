"""A real worker process, driven over its channel as the agent would: for tests of the worker alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from proxy import compiled
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.listener import FilterChain, HttpConnectionManager, Listener
from proxy.config.model import Address
from proxy.config.route import ForwardAction, RetryPolicy, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.config.route import WeightedCluster as Weighted
from proxy.config.snapshot import Snapshot, diff
from proxy.worker import channel

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[int]:
    """A raw TCP server on an ephemeral port; `handler` scripts each connection."""
    handlers: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            handlers.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 22)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass
class Worker:
    """The process, our end of its channel, and the address that it serves on."""

    process: asyncio.subprocess.Process
    sock: socket.socket
    listening: socket.socket
    port: int
    version: int = 0
    decoder: channel.Decoder = field(default_factory=channel.Decoder)
    inbox: list[channel.Message] = field(default_factory=list)
    snapshot: Snapshot = field(default_factory=Snapshot)
    totals: dict[channel.MetricKey, int] = field(default_factory=dict)
    gauges: dict[channel.MetricKey, float] = field(default_factory=dict)

    async def send(self, message: channel.Message, fd: int | None = None) -> None:
        data = channel.encode(message)
        if fd is not None:
            socket.send_fds(self.sock, [data[:1]], [fd])
            data = data[1:]
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def expect(self, kind: type[Any]) -> Any:
        """The next message of a kind; Stats on the way are added up."""
        async with asyncio.timeout(10):
            while True:
                for message in list(self.inbox):
                    self.inbox.remove(message)
                    if isinstance(message, channel.Stats):
                        for key, value in message.counters:
                            self.totals[key] = self.totals.get(key, 0) + value
                        self.gauges.update(message.gauges)
                    if isinstance(message, kind):
                        return message
                data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20)
                if not data:
                    raise EOFError("the worker is gone")
                self.inbox += self.decoder.feed(data)

    async def apply(self, snapshot: Snapshot) -> str | None:
        """Send the delta to `snapshot`; returns the worker's error."""
        self.version += 1
        await self.send(channel.Update(self.version, diff(self.snapshot, snapshot)))
        applied = await self.expect(channel.Applied)
        assert applied.version == self.version
        if applied.error is None:
            self.snapshot = snapshot
        error: str | None = applied.error
        return error

    async def count(self, name: str, **labels: str) -> int:
        """A counter's value now, over all series that carry these labels."""
        await self.send(channel.Flush(self.version + 1000))
        while (await self.expect(channel.Stats)).id != self.version + 1000:
            pass
        wanted = set(labels.items())
        return sum(value for (key, pairs), value in self.totals.items() if key == name and wanted <= set(pairs))

    async def gauge(self, name: str) -> float:
        """The sum of a gauge over all its series now."""
        await self.count(name)
        return sum(value for (key, _), value in self.gauges.items() if key == name)

    async def at_rest(self, seconds: float = 5.0) -> None:
        """Wait until no request is active; raises TimeoutError when that does not come."""
        async with asyncio.timeout(seconds):
            while await self.gauge("upstream_rq_active"):  # noqa: ASYNC110  # another process's gauge
                await asyncio.sleep(0.02)

    async def talk(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes on a new connection and return all that comes until the worker closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if half_close:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def worker() -> AsyncIterator[Worker]:
    """A worker with one listening socket and no configuration yet."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "proxy.worker", "--fd", str(theirs.fileno()), pass_fds=[theirs.fileno()],
        env={**os.environ, "PYTHONPATH": str(compiled.path() or compiled.SOURCE.parent)},
    )  # fmt: skip
    theirs.close()
    port = listening.getsockname()[1]
    try:
        one = Worker(process, ours, listening, port)
        await one.send(channel.Listen(f"127.0.0.1:{port}"), listening.fileno())
        yield one
    finally:
        ours.close()
        listening.close()
        await asyncio.wait_for(process.wait(), 10)


def snapshot(
    port: int,
    *upstreams: int,
    action: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    http: dict[str, Any] | None = None,
    listener: dict[str, Any] | None = None,
) -> Snapshot:
    """One listener on `port`, one route to one cluster of local ports; the rest as given."""
    forward = ForwardAction(
        **{
            "clusters": (Weighted("app"),),
            "retry": RetryPolicy(frozenset(("connect-failure",)), 2),
            **(action or {}),
        }
    )
    routes = RouteConfiguration(
        "routes", (VirtualHost("all", ("*",), (Route(RouteMatch("prefix", "/"), forward, "main"),)),)
    )
    manager = HttpConnectionManager(**{"stat_prefix": "test", "route_config": routes, **(http or {})})
    return Snapshot(
        listeners={
            "main": Listener("main", Address("127.0.0.1", port), FilterChain(manager), **(listener or {})),
        },
        clusters={"app": Cluster("app", "STATIC", "app", **(cluster or {}))},
        assignments={"app": LoadAssignment("app", tuple(Endpoint(Address("127.0.0.1", up)) for up in upstreams))},
    )
