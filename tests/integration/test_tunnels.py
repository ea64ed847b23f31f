"""Tunnels through whole sidecars: real WebSocket peers in a mesh, bulk within bounds of memory, and what Envoy does with
the same file."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from pillion.demo.processes import free_ports
from tests.support import bootstrap, leaks, sidecars
from tests.support.envoy import ENVOY, MISSING
from tests.support.harness import Harness, access_log, metric
from tests.support.tcp import app_in_thread
from tests.support.tunnels import CONNECT, SWITCHING, UPGRADE, App
from tests.support.wait import wait_until

MIB = 1024 * 1024
WEBSOCKET = {"upgrade_configs": [{"upgrade_type": "websocket"}]}

# ---- a mesh


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Every text back, with who asked; the server ends at "bye"."""
    ws = web.WebSocketResponse(protocols=("chat",))
    await ws.prepare(request)
    async for message in ws:
        if message.type == WSMsgType.BINARY:
            await ws.send_bytes(message.data)
        elif message.data == "bye":
            await ws.close(code=4000, message=b"later")
        else:
            await ws.send_str(f"{message.data} {request.headers['x-forwarded-client-cert'].rpartition('URI=')[2]}")
    return ws


@contextlib.contextmanager
def websocket_app() -> Iterator[int]:
    """An aiohttp server with a loop and a thread of its own; its port."""
    started, ended = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    ports: list[int] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        app = web.Application()
        app.router.add_get("/chat", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        started.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="websocket app", daemon=True)
    thread.start()
    assert started.wait(5), "the app did not start"
    try:
        yield ports[0]
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(10)


def test_websocket_passes_a_mesh_as_it_is(bare_mesh: Harness) -> None:
    bare_mesh.apply("kind: Service\nname: web\n---\nkind: Service\nname: chat\n")

    async def talk(port: int) -> None:
        async with aiohttp.ClientSession() as session:
            url, headers = f"http://127.0.0.1:{port}/chat", {"Host": "chat"}
            async with session.ws_connect(url, headers=headers, protocols=("chat",)) as ws:
                assert ws.protocol == "chat"
                await ws.send_str("hello")
                assert await ws.receive_str(timeout=10) == "hello spiffe://pillion.local/service/web"
                await ws.send_bytes(b"x" * 1_000_000)
                assert await ws.receive_bytes(timeout=10) == b"x" * 1_000_000
                await ws.send_str("bye")
                message = await ws.receive(timeout=10)
                assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4000, "later")

    with websocket_app() as port:
        caller = bare_mesh.start_sidecar("web", 9)
        called = bare_mesh.up_sidecar("chat", port)
        wait_until(caller.ready, 30)
        bare_mesh.wait_for_endpoints(caller, "chat", 1)
        asyncio.run(talk(caller.outbound))
        for sidecar in (caller, called):
            (record,) = wait_until(lambda: [r for r in access_log(sidecar.process) if r["path"] == "/chat"], 5)  # noqa: B023
            # Both sides close at once: DC when the client's end came first.
            assert (record["status"], record["flags"] in ("-", "DC")) == (101, True)
            assert record["bytes_sent"] > 1_000_000 < record["bytes_received"]
            assert metric(sidecar.admin, "downstream_cx_upgrades_active") == 0
            assert metric(sidecar.admin, "upstream_rq_active") == 0


# ---- bulk

BULK = 200 * MIB
BOUND = 16 * MIB
"""How far a sidecar may grow above its idle memory, agent and worker together."""


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """BULK both ways at once; neither side waits for the other."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(SWITCHING)

    async def send() -> None:
        for _ in range(BULK // MIB):
            writer.write(bytes(MIB))
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        left = BULK
        await asyncio.sleep(2)  # a reader that begins late
        while left:
            left -= len(await reader.read(MIB))
        await sending
    finally:
        sending.cancel()


def test_bulk_waits_at_its_sender(work: Harness) -> None:
    with app_in_thread(flood) as port:
        pair = sidecars.pair(work, port, manager=WEBSOCKET)
        idle = {name: one.memory() for name, one in pair.sidecars.items()}
        with (
            socket.create_connection(("127.0.0.1", pair.front.listen), 30) as client,
            sidecars.Peak(pair.sidecars) as peak,
        ):
            client.sendall(UPGRADE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            sender = threading.Thread(target=lambda: [client.sendall(bytes(MIB)) for _ in range(BULK // MIB)])
            sender.start()
            time.sleep(2)
            received = 0
            while received < BULK:
                received += len(client.recv(MIB))
            sender.join(30)
            assert client.recv(1) == b""
        assert received == BULK
        for name, highest in peak.highest.items():
            assert highest < idle[name] + BOUND, name


# ---- Envoy


def config(listen: int, upstream: int, admin: int) -> dict[str, Any]:
    """WebSocket everywhere but below /no; CONNECT to "proxy:1" is passed on, to all else ends here."""

    def connect(**config: Any) -> dict[str, Any]:
        upgrade = {"upgrade_type": "CONNECT", **config}
        return {"match": {"connect_matcher": {}}, "route": {"cluster": "upstream", "upgrade_configs": [upgrade]}}

    no = {"cluster": "upstream", "upgrade_configs": [{"upgrade_type": "websocket", "enabled": False}]}
    routes = [
        {"match": {"prefix": "/no"}, "route": no},
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "1s"}},
    ]
    hosts = [
        {"name": "proxy", "domains": ["proxy:1"], "routes": [connect()]},
        {"name": "plain", "domains": ["plain:1"], "routes": routes},
        {"name": "all", "domains": ["*"], "routes": [connect(connect_config={}), *routes]},
    ]
    manager = {**WEBSOCKET, "stream_idle_timeout": "2s", "route_config": {"name": "r", "virtual_hosts": hosts}}
    return bootstrap.hop(listen, upstream, admin, manager=manager)


@contextlib.contextmanager
def envoy(work: Harness, file: Path, listen: int) -> Iterator[None]:
    command = [str(ENVOY), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    with (work.directory / "envoy.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    leaks.OWNED.add(process.pid)

    def accepts() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", listen)) == 0

    try:
        wait_until(accepts, 30, "Envoy listens")
        yield
    finally:
        process.terminate()
        process.wait(10)
        leaks.OWNED.discard(process.pid)


def ask(port: int, request: bytes, *parts: bytes, seconds: float = 5) -> tuple[bytes, bytes]:
    """(first line of the answer, what follows its head until as much came as was sent behind it)."""
    with socket.create_connection(("127.0.0.1", port), seconds) as sock:
        sock.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            data = sock.recv(65536)
            if not data:
                return got, b""
            got += data
        head, _, body = got.partition(b"\r\n\r\n")
        expected = sum(map(len, parts))
        for part in parts:
            sock.sendall(part)
        while len(body) < expected and (data := sock.recv(65536)):
            body += data
        return head.split(b"\r\n")[0], body


class Anything(App):
    """Behaves as a proxy or a WebSocket server by what it is asked, and as an echo where nothing is asked."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = await reader.read(65536)
        if start.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        elif b"upgrade: websocket" in start.lower():
            writer.write(SWITCHING)
        else:
            writer.write(start)
        await self.echo(reader, writer)


CASES: dict[str, Callable[[int], object]] = {
    "a tunnel": lambda port: ask(port, UPGRADE, b"hello", b"again"),
    "its list of connection options": lambda port: ask(
        port, UPGRADE.replace(b"connection: Upgrade", b"connection: keep-alive, Upgrade"), b"hello"
    ),
    "CONNECT that ends here": lambda port: ask(port, CONNECT, b"hello", b"again"),
    "CONNECT that goes on": lambda port: ask(port, CONNECT.replace(b"db:5432", b"proxy:1"), b"hello", b"again"),
    "CONNECT where no route allows it": lambda port: ask(port, CONNECT.replace(b"db:5432", b"plain:1"))[0],
    "after the route's timeout": lambda port: late(port),
}


def late(port: int) -> bytes:
    """A tunnel that outlives the route's timeout, and ends by the idle timeout."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(UPGRADE)
        while not (got := sock.recv(65536)).endswith(b"\r\n\r\n"):
            pass
        time.sleep(1.3)
        sock.sendall(b"hello")
        got = sock.recv(65536)
        with contextlib.suppress(ConnectionResetError):  # ours; Envoy closes
            got += sock.recv(65536)
        return got


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="Envoy is not installed")
def test_envoy_does_the_same_with_the_same_file(work: Harness) -> None:
    answers: list[dict[str, object]] = []
    with app_in_thread(Anything()) as app:
        for which in ("envoy", "pillion"):
            listen, admin = free_ports(2)
            values = config(listen, app, admin)
            if which == "envoy":
                with envoy(work, bootstrap.write(work.directory, which, values), listen):
                    answers.append({name: case(listen) for name, case in CASES.items()})
            else:
                sidecars.start(work, which, values, listen, admin)
                answers.append({name: case(listen) for name, case in CASES.items()})
    assert answers[0] == answers[1]
    assert answers[0]["a tunnel"] == (b"HTTP/1.1 101 Switching Protocols", b"helloagain")
    assert answers[0]["CONNECT that ends here"] == (b"HTTP/1.1 200 OK", b"helloagain")
    assert answers[0]["CONNECT where no route allows it"] == b"HTTP/1.1 404 Not Found"
    assert answers[0]["after the route's timeout"] == b"hello"
