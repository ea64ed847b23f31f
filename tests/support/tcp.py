"""TCP listeners for a real worker, and the other ends of their connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.listener import AccessLog, FilterChain, Listener, TcpProxy
from proxy.config.model import Address, TlsCertificate
from proxy.config.route import WeightedCluster
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.support import leaks
from tests.support.certificates import Leaf
from tests.support.wait import until
from tests.support.worker import Handler, Worker, upstream

END = b"END"
RESET = struct.pack("ii", 1, 0)
FIELDS = {
    "flags": "%RESPONSE_FLAGS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "status": "%RESPONSE_CODE%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "header": "%REQ(X-ANY)%",
    "ms": "%DURATION%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
}


def tcp_snapshot(
    port: int,
    *upstreams: int,
    tcp: dict[str, Any] | None = None,
    chain: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    log: Path | None = None,
    **rest: Any,
) -> Snapshot:
    """One TCP listener on `port`, one cluster of local ports; the rest as given (`rest`: fields of the Snapshot)."""
    logs = (AccessLog(str(log), tuple(FIELDS.items())),) if log else ()
    relay = TcpProxy(**{"stat_prefix": "t", "clusters": (WeightedCluster("app"),), "access_logs": logs, **(tcp or {})})
    return Snapshot(
        listeners={"main": Listener("main", Address("127.0.0.1", port), FilterChain(tcp=relay, **(chain or {})))},
        clusters={"app": Cluster("app", "STATIC", "app", **(cluster or {}))},
        assignments={"app": LoadAssignment("app", tuple(Endpoint(Address("127.0.0.1", up)) for up in upstreams))},
        **rest,
    )


async def give_key(one: Worker, name: str, leaf: Leaf) -> TlsCertificate:
    """Hand a worker a key, as the agent does."""
    fd = channel.memfd(name, (leaf.chain + leaf.key).encode())
    try:
        await one.send(channel.Key(name, "1"), fd)
    finally:
        os.close(fd)
    return TlsCertificate(name, leaf.chain, "1")


async def records(log: Path, count: int) -> list[dict[str, Any]]:
    """The access log, once it has `count` lines; it must not get more."""

    def read() -> list[dict[str, Any]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines] if len(lines) >= count else []

    found = await until(read, 5, f"{count} lines in the access log")
    assert len(found) == count
    return found


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything back, and END when the client has said its last word."""
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.write(END)
    await writer.drain()


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end, then say how much it was."""
    total = 0
    while data := await reader.read(1 << 18):
        total += len(data)
    writer.write(b"%d" % total)
    await writer.drain()


async def exchange(port: int, data: bytes, *, half_close: bool = True) -> bytes:
    """Send, half-close, and return all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:

        async def send() -> None:
            writer.write(data)
            if half_close:
                writer.write_eof()
            await writer.drain()

        sending = asyncio.ensure_future(send())
        try:
            async with asyncio.timeout(30):
                received = await reader.read()
                await sending
                return received
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        await finish(writer)


async def finish(writer: asyncio.StreamWriter) -> None:
    """Close, whatever has become of the connection."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def pipes(pid: int) -> set[str]:
    """The pipes that a process has open, as pipe:[INODE]."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(fd))
    return {link for link in found if link.startswith("pipe:")}


def resident(pid: int) -> int:
    """Bytes of a process's own memory now (RssAnon: without files and shared memory)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@contextlib.contextmanager
def app_in_thread(handler: Handler = echo) -> Iterator[int]:
    """A TCP server with an event loop and a thread of its own, for tests that drive processes and wait; its port."""
    started, ended = threading.Event(), asyncio.Event()
    found: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def owned(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # It may live longer than one test, so connections that stay open are no leak; they end with it.
        leaks.OWNED_SOCKETS.add(f"socket:[{os.fstat(writer.get_extra_info('socket').fileno()).st_ino}]")
        await handler(reader, writer)

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with upstream(owned) as port:
            found.append(port)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="tcp app", daemon=True)
    thread.start()
    assert started.wait(5), "the app did not start"
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(5)
