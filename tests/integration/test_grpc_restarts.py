"""Servers and sidecars that stop under load: no call is lost. Two of each: clients, first sidecars, second sidecars, gRPC
servers. And what a server refuses (GOAWAY, REFUSED_STREAM) is done elsewhere, or again, since nobody has seen it.

Envoy's SIGTERM ends it at once, so those two tests are for our own only, and it passes grpc-timeout on as it came."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from pillion.demo.processes import Process, free_ports
from tests.support import grpc_app, grpc_client, grpc_mesh, grpc_wire
from tests.support.grpc_app import path
from tests.support.grpc_wire import App, Message, Reply, frame, grpc_request
from tests.support.harness import Harness, harness, metric
from tests.support.sidecars import Sidecar

RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
}
ROOM = {"thresholds": [{"max_retries": 100}]}
"""All who wait for one connection are retried at once when it cannot be made: more than the three of the default."""
RATE = 60.0
"""Unary calls a second, each of which takes NAP seconds at the server."""
NAP = 0.05
STREAMS = 4
"""Bidirectional streams at any time; each of them lasts about half a second."""
GRPCIOS = "unary CANCELLED: CANCELLED"
"""What a server of grpcio that stops says to calls that it has accepted and not begun; without any sidecar, too."""
STOP = 20.0
"""Seconds for a process to stop."""


@dataclass
class Mesh:
    """What can be stopped, by name, and how to start it again."""

    work: Harness
    starts: dict[str, Callable[[], Process | Sidecar]] = field(default_factory=dict)
    running: dict[str, Process | Sidecar] = field(default_factory=dict)
    fronts: list[int] = field(default_factory=list)
    wire: App | None = None

    def up(self, name: str) -> None:
        """Start, and wait until it is ready."""
        self.running[name] = self.starts[name]()

    def process(self, name: str) -> Process:
        one = self.running[name]
        return one.process if isinstance(one, Sidecar) else one


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with harness(tmp_path_factory.mktemp("restarts")) as work, grpc_wire.h2_app(answer) as wire:
        yield start(work, wire)


def answer(request: Message) -> Reply:
    """A call that succeeds, with the deadline that it had."""
    message = frame((request.get("grpc-timeout") or "").encode())
    trailers = [("grpc-status", "0")]
    return Reply(200, [("content-type", "application/grpc")], message, trailers, length=False)


def start(work: Harness, wire: App) -> Mesh:
    seats = grpc_mesh.only_pillion()
    keys = grpc_mesh.credentials(work)
    mesh = Mesh(work, fronts=free_ports(2), wire=wire)
    servers, backs = free_ports(2), free_ports(2)

    def server(number: int) -> Process:
        return grpc_app.start(work, f"server {number}", port=servers[number])[0]

    def back(number: int) -> Sidecar:
        hosts = [
            grpc_mesh.host("wire", "wire", "*.wire", retry_policy=RETRY),
            grpc_mesh.host("calls", "calls", "*", retry_policy=RETRY),
        ]
        listener = grpc_mesh.listener("back", backs[number], hosts, keys.server)
        clusters = [grpc_mesh.cluster("calls", *servers, circuit_breakers=ROOM), grpc_mesh.cluster("wire", wire.port)]
        return grpc_mesh.start(work, seats.back, f"back {number}", [listener], clusters)

    def front(number: int) -> Sidecar:
        timed = {"max_stream_duration": {"grpc_timeout_header_max": "0s"}}
        hosts = [grpc_mesh.host("all", "backs", "*", retry_policy=RETRY, **timed)]
        listener = grpc_mesh.listener("front", mesh.fronts[number], hosts)
        clusters = [grpc_mesh.cluster("backs", *backs, tls=keys.client, circuit_breakers=ROOM)]
        return grpc_mesh.start(work, seats.front, f"front {number}", [listener], clusters)

    for number in (0, 1):
        mesh.starts[f"server {number}"] = lambda number=number: server(number)
        mesh.starts[f"back {number}"] = lambda number=number: back(number)
        mesh.starts[f"front {number}"] = lambda number=number: front(number)
    for name in mesh.starts:
        mesh.up(name)
    return mesh


class Load:
    """Open-loop unary calls and a few streams, on one channel; `outcomes` by status, "OK" or "UNAVAILABLE: ..."."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.outcomes: Counter[str] = Counter()
        self.servers: Counter[str] = Counter()
        self._channel = channel
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until stop()."""
        streams = [asyncio.create_task(self._streams()) for _ in range(STREAMS)]
        due = time.monotonic()
        while not self._stopping.is_set():
            task = asyncio.create_task(self._unary())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*self._tasks, *streams)

    def stop(self) -> None:
        """No new calls."""
        self._stopping.set()

    async def _unary(self) -> None:
        call = self._channel.unary_unary(path("Unary"))(b"x", metadata=[("nap", str(NAP))], timeout=10)
        try:
            assert await call == b"x"
            self.servers[str(dict(await call.initial_metadata())["served-by"])] += 1
            self.outcomes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.outcomes[f"unary {error.code().name}: {error.details()}"] += 1

    async def _streams(self) -> None:
        while not self._stopping.is_set():
            call = self._channel.stream_stream(path("Chat"))(timeout=10)
            try:
                for number in range(10):
                    await call.write(b"%d" % number)
                    assert await call.read() == b"%d" % number
                    await asyncio.sleep(0.05)
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
                self.outcomes["OK"] += 1
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                self.outcomes[f"stream {(await call.code()).name}: {await call.details()}"] += 1


@asynccontextmanager
async def load(*ports: int) -> AsyncIterator[Load]:
    """Calls in turn to sidecars on `ports`; grpcio's own retries are off, so that none of them hides a loss."""
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    more: list[tuple[str, Any]] = [("grpc.enable_retries", 0), ("grpc.lb_policy_name", "round_robin")]
    async with grpc.aio.insecure_channel(target, [*grpc_client.options("calls"), *more]) as channel:
        one = Load(channel)
        await channel.unary_unary(path("Unary"))(b"", timeout=10)
        running = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            one.stop()
            await running


async def stop_and_start(mesh: Mesh, name: str, *ports: int) -> Load:
    """A process stops in an orderly way under load, and comes back; the load's outcome."""
    async with load(*ports) as one:
        await asyncio.sleep(0.7)
        process = mesh.process(name)
        process.terminate()
        await asyncio.to_thread(process.wait, STOP)
        await asyncio.sleep(0.3)
        without = one.servers.copy()
        mesh.up(name)
        await asyncio.sleep(1.0)
    if name.startswith("server"):
        del one.outcomes[GRPCIOS]
    assert set(one.outcomes) == {"OK"}, one.outcomes
    assert one.outcomes["OK"] > RATE
    assert sum(one.servers.values()) > sum(without.values())
    return one


async def test_a_server_that_stops_loses_no_call(mesh: Mesh) -> None:
    """grpcio's server sends GOAWAY, ends what is under way, refuses the rest."""
    one = await stop_and_start(mesh, "server 0", mesh.fronts[0])
    assert set(one.servers) == {"server 0", "server 1"}


async def test_a_second_sidecar_that_drains_loses_no_call(mesh: Mesh) -> None:
    await stop_and_start(mesh, "back 0", mesh.fronts[0])


async def test_a_first_sidecar_that_drains_loses_no_call(mesh: Mesh) -> None:
    """Its clients have another one."""
    await stop_and_start(mesh, "front 0", *mesh.fronts)


# ---- refusals


@pytest.mark.parametrize("how", ["refuse", "goaway"])
def test_a_refused_request_is_done_again(mesh: Mesh, how: str) -> None:
    """RFC 9113 §8.7: REFUSED_STREAM, and streams above GOAWAY's last: not processed, so even a POST may be repeated."""
    assert mesh.wire is not None
    ours = grpc_mesh.only_pillion() == grpc_mesh.PILLION
    before = retries(mesh) if ours else 0
    asked = f"/{how}/0/{time.monotonic()}"
    with grpc_wire.Client(mesh.fronts[0]) as client:
        for number in range(3):
            call = client.ask(grpc_request("h2.wire", f"{asked}/{number}"), frame(b"hello"))
            assert (call.status, call.trailers) == (200, [("grpc-status", "0")])
            assert [bytes(one.body) for one in mesh.wire.seen if one.pseudo[":path"] == f"{asked}/{number}"] == [
                frame(b"hello"),
                frame(b"hello"),
            ]
    if ours:
        assert retries(mesh) == before + 3


def retries(mesh: Mesh) -> float:
    backs = [mesh.running["back 0"], mesh.running["back 1"]]
    return sum(metric(b.admin, "upstream_rq_retry_total", cluster="wire") for b in backs if isinstance(b, Sidecar))


def test_what_a_try_took_is_gone_from_the_deadline(mesh: Mesh) -> None:
    """The first try is refused after 0.3 s; what the second one hears of grpc-timeout is less by as much."""
    assert mesh.wire is not None
    asked = f"/refuse/0.3/{time.monotonic()}"
    with grpc_wire.Client(mesh.fronts[0]) as client:
        call = client.ask(grpc_request("h2.wire", asked, grpc_timeout="5S"), frame(b"hello"))
        assert call.trailers == [("grpc-status", "0")]
    first, second = (seconds(one.get("grpc-timeout")) for one in mesh.wire.seen if one.pseudo[":path"] == asked)
    assert 4.5 < first <= 5
    assert 3.5 < second <= first - 0.29


def seconds(timeout: str | None) -> float:
    """A grpc-timeout: at most eight digits and a unit (gRPC over HTTP/2, "Timeout")."""
    assert timeout is not None
    value, unit = timeout[:-1], timeout[-1]
    assert len(value) <= 8
    return int(value) * {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}[unit]
