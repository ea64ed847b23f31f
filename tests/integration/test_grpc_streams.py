"""What streams need of a pair of sidecars: cancellation in time, deadlines, a thousand at once, and flow control from end
to end: whoever stops reading stops the sender, within bounds, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.support import grpc_app, grpc_client, grpc_mesh, grpc_wire, sidecars
from tests.support.grpc_app import BLOCK, path
from tests.support.grpc_wire import frame, grpc_request
from tests.support.harness import Harness, harness, metric
from tests.support.sidecars import Pair
from tests.support.wait import until

MIB = 1024 * 1024
STANDSTILL = 0.5
"""Seconds without progress after which a sender counts as stopped."""
HELD = 2 * MIB
"""Bytes between a sender and a receiver that does not read: the windows of three connections, grpcio's own buffers."""
GROWTH = 16 * MIB
"""How far a sidecar may grow above its idle memory, agent and worker together."""
FEW = 4

names = (b"call %d" % number for number in itertools.count())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with harness(tmp_path_factory.mktemp("streams")) as work:
        yield start(work)


def start(work: Harness) -> Pair:
    """Calls to `deadline.aio` are under the caller's grpc-timeout. A connection to `few` takes FEW calls, and of those to
    `one`, the same app, there is only one."""
    few = grpc_app.start(work, "few", "--streams", str(FEW))[1]
    apps = {"aio": grpc_app.start(work, "aio")[1], "few": few}
    timed = {"max_stream_duration": {"grpc_timeout_header_max": "0s"}}
    limits = {"thresholds": [{"max_connections": 1, "max_pending_requests": 2}]}
    return grpc_mesh.start_pair(
        work,
        grpc_mesh.only_pillion(),
        apps,
        front_hosts=[grpc_mesh.host("deadline", "h2", "deadline.*", **timed)],
        back_hosts=[grpc_mesh.host("one", "one", "*.one")],
        back_clusters=[grpc_mesh.cluster("one", few, circuit_breakers=limits)],
    )


def connected(pair: Pair, authority: str = "h2.aio") -> contextlib.AbstractAsyncContextManager[grpc.aio.Channel]:
    """A channel of its own; no fixture, since grpcio keeps sockets as long as somebody knows a channel."""
    return grpc_client.aio_channel(pair.front.listen, authority)


async def ask(channel: grpc.aio.Channel, method: str, request: bytes, within: float = 30.0) -> bytes:
    answer: bytes = await channel.unary_unary(path(method))(request, timeout=within)
    return answer


async def noted(channel: grpc.aio.Channel, key: bytes, what: str) -> float:
    """What the server noted of a call, once it has."""

    async def found() -> float | None:
        value: float | None = json.loads(await ask(channel, "Noted", key)).get(what)
        return value

    async with asyncio.timeout(10):
        while (value := await found()) is None:  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(0.005)
    return value


# ---- cancellation


async def test_cancellation_reaches_the_server_within_100_ms(pair: Pair) -> None:
    """The median of eleven: one of them may meet a busy machine."""
    async with connected(pair) as channel:
        took = []
        for _ in range(11):
            key = next(names)
            call = channel.unary_unary(path("Wait"))(key, timeout=30)
            await noted(channel, key, "began")
            cancelled = time.monotonic()
            assert call.cancel()
            took.append(await noted(channel, key, "ended") - cancelled)
            with pytest.raises(asyncio.CancelledError):
                await call
        assert statistics.median(took) < 0.1, took


def test_cancellation_by_the_synchronous_client(pair: Pair) -> None:
    """In the middle of a stream that never ends; the server learns of it, and the connection stays in use."""
    with grpc_client.channel(pair.front.listen, "h2.aio") as channel:
        key = next(names)
        flood = channel.unary_stream(path("Flood"))(key, timeout=30)
        assert next(flood) == BLOCK
        flood.cancel()
        with pytest.raises(grpc.RpcError) as stopped:
            for _ in flood:
                pass
        assert stopped.value.code() is grpc.StatusCode.CANCELLED
        ask_ = channel.unary_unary(path("Noted"))
        sent = -1
        while sent != (sent := json.loads(ask_(key, timeout=30))["sent"]):
            time.sleep(0.05)
        assert channel.unary_unary(path("Unary"))(b"still here", timeout=30) == b"still here"


async def test_a_client_that_is_gone_cancels_its_calls(pair: Pair) -> None:
    async with connected(pair) as channel:
        key = next(names)
        with grpc_wire.Client(pair.front.listen) as client:
            client.send(grpc_request("h2.aio", path("Wait")), frame(key))
            await noted(channel, key, "began")
        await noted(channel, key, "ended")


# ---- deadlines


async def test_a_deadline_reaches_the_server(pair: Pair) -> None:
    async with connected(pair) as channel:
        assert 3.0 < float(await ask(channel, "Remaining", b"", 5.0)) <= 5.0
        assert await channel.unary_unary(path("Remaining"))(b"") == b"none"


async def test_the_client_gives_up_at_its_deadline(pair: Pair) -> None:
    async with connected(pair) as channel:
        key = next(names)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, "Wait", key, 0.3)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await noted(channel, key, "ended")


async def test_the_sidecar_ends_a_call_at_its_deadline(pair: Pair) -> None:
    """A client that asks for a deadline and does not keep it itself."""
    async with connected(pair) as channel:
        key = next(names)
        with grpc_wire.Client(pair.front.listen) as client:
            began = time.monotonic()
            answer = client.ask(grpc_request("deadline.aio", path("Wait"), grpc_timeout="300m"), frame(key))
            took = time.monotonic() - began
        assert (answer.status, answer.get("grpc-status"), bytes(answer.body)) == (200, "4", b"")
        assert answer.headers_only
        assert 0.25 < took < 2
        await noted(channel, key, "ended")


def test_a_deadline_ends_a_stream_under_way(pair: Pair) -> None:
    """The answer has begun, so the status can only come in trailers, or the stream is reset."""
    with grpc_wire.Client(pair.front.listen) as client:
        head = grpc_request("deadline.aio", path("Chat"), grpc_timeout="400m")
        stream = client.send(head, frame(b"hello"), end=False)
        client.until(stream, lambda message: len(message.body) >= 10)
        answer = client.answer(stream)
    assert bytes(answer.body) == frame(b"hello")
    assert answer.trailers is not None or answer.reset is not None
    if answer.trailers is not None:
        assert dict(answer.trailers)["grpc-status"] == "4"


# ---- a thousand


async def test_1000_concurrent_streams(pair: Pair) -> None:
    """All are open before any of them ends, on one connection from the client."""
    async with connected(pair) as channel:
        start = channel.stream_stream(path("Chat"))
        calls = [start(timeout=60) for _ in range(1000)]
        for number, call in enumerate(calls):
            await call.write(b"%d" % number)
        for number, call in enumerate(calls):
            assert await call.read() == b"%d" % number
        if grpc_mesh.only_pillion() == grpc_mesh.PILLION:
            assert metric(pair.back.admin, "upstream_rq_active") == 1000
        for number, call in enumerate(calls):
            await call.write(b"%d again" % number)
            await call.done_writing()
        for number, call in enumerate(calls):
            assert await call.read() == b"%d again" % number
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK


# ---- more than a connection to the app takes


async def test_an_app_that_takes_few_streams_gets_more_connections(pair: Pair) -> None:
    """What its first connection says of SETTINGS_MAX_CONCURRENT_STREAMS counts for those that are opened next. Not so
    in Envoy, whose calls this app resets."""
    async with connected(pair, "h2.few") as channel:
        await ask(channel, "Unary", b"first")
        keys = [next(names) for _ in range(5 * FEW)]
        calls = [channel.unary_unary(path("Wait"))(key, timeout=30) for key in keys]
        for key in keys:
            await noted(channel, key, "began")
        if grpc_mesh.only_pillion() == grpc_mesh.PILLION:
            assert metric(pair.back.admin, "upstream_cx_active", cluster="few") > 5
        for call in calls:
            call.cancel()
        for key in keys:
            await noted(channel, key, "ended")


async def test_who_finds_no_stream_waits_for_one(pair: Pair) -> None:
    """First come first served, as many as max_pending_requests, as long as their deadlines."""
    async with connected(pair, "h2.one") as channel, connected(pair, "h2.few") as observer:
        keys = [next(names) for _ in range(FEW + 2)]
        calls = []
        for number, key in enumerate(keys):
            calls.append(channel.unary_unary(path("Wait"))(key, timeout=30 if number != FEW else 1.0))
            if number < FEW:
                await noted(observer, key, "began")
            await asyncio.sleep(0.05)  # a call that waits is seen by nobody
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, "Unary", b"one too many")
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE

        with pytest.raises(grpc.aio.AioRpcError) as error:
            await calls[FEW]
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        calls[0].cancel()
        await noted(observer, keys[-1], "began")
        assert json.loads(await ask(observer, "Noted", keys[FEW])) == {}, "it had given up"
        for call in calls:
            call.cancel()
        await noted(observer, keys[-1], "ended")


# ---- flow control


class Sender:
    """Sends `total` bytes in a client stream, as fast as it may; `sent` grows meanwhile."""

    def __init__(self, channel: grpc.aio.Channel, total: int) -> None:
        self.key = next(names)
        self.sent = 0
        self.digest = hashlib.sha256()
        self.call = channel.stream_unary(path("Hold"))()
        self.task = asyncio.create_task(self._run(total))

    async def _run(self, total: int) -> None:
        await self.call.write(self.key)
        for number in range(total // len(BLOCK)):
            block = number.to_bytes(4, "big") + BLOCK[4:]
            await self.call.write(block)
            self.digest.update(block)
            self.sent += len(block)
        await self.call.done_writing()

    async def end(self) -> None:
        """However far it came."""
        self.call.cancel()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def stopped(progress: Any) -> int:
    """The progress of a sender once it makes none."""
    before, value = -1, 0
    while value != before or not value:
        before = value
        await asyncio.sleep(STANDSTILL)
        value = await progress()
    return value


async def neighbours(channel: grpc.aio.Channel) -> None:
    """Calls with large messages both ways, on the same connection."""
    for _ in range(3):
        assert await ask(channel, "Unary", bytes(MIB), 10.0) == bytes(MIB)


async def test_a_server_that_does_not_read_stops_the_client(pair: Pair) -> None:
    async with connected(pair) as channel:
        idle = {name: one.memory() for name, one in pair.sidecars.items()}
        total = 64 * MIB
        with sidecars.Peak(pair.sidecars) as peak:
            sender = Sender(channel, total)
            try:

                async def sent() -> int:
                    return sender.sent

                held = await stopped(sent)
                assert held < HELD, held
                await neighbours(channel)
                assert sender.sent == held, "the neighbours made it go on"
                await ask(channel, "Release", sender.key)
                async with asyncio.timeout(30):
                    await sender.task
                    answer = await sender.call
            finally:
                await sender.end()
        assert answer == grpc_app.summary(total // len(BLOCK), sender.digest)
        for name, highest in peak.highest.items():
            assert highest < idle[name] + GROWTH, name


async def test_a_client_that_does_not_read_stops_the_server(pair: Pair) -> None:
    async with connected(pair) as channel:
        idle = {name: one.memory() for name, one in pair.sidecars.items()}
        key = next(names)
        with sidecars.Peak(pair.sidecars) as peak:
            call = channel.unary_stream(path("Flood"))(key, timeout=60)
            assert await call.read() == BLOCK

            async def sent() -> int:
                return int(await noted(channel, key, "sent"))

            held = await stopped(sent)
            assert held < HELD, held
            await neighbours(channel)
            assert await sent() == held
            for _ in range(64 * MIB // len(BLOCK)):
                assert await call.read() == BLOCK
            call.cancel()
        for name, highest in peak.highest.items():
            assert highest < idle[name] + GROWTH, name


async def test_many_stalled_streams_leave_room_for_their_neighbours(pair: Pair) -> None:
    """Sixteen up and sixteen down."""
    async with connected(pair) as channel:
        senders = [Sender(channel, 4 * MIB) for _ in range(16)]
        floods = [channel.unary_stream(path("Flood"))(next(names), timeout=60) for _ in range(16)]
        try:
            for flood in floods:
                assert await flood.read() == BLOCK

            async def sent() -> int:
                return sum(sender.sent for sender in senders)

            await stopped(sent)
            assert not any(sender.task.done() for sender in senders)
            await neighbours(channel)
        finally:
            for flood in floods:
                flood.cancel()
            for sender in senders:
                await sender.end()


async def test_a_cancelled_stall_gives_back_what_it_held(pair: Pair) -> None:
    """Streams that are given up while data waits for them must not use up the connection (RFC 9113 §6.9)."""
    async with connected(pair) as channel:
        for _ in range(3):
            calls = [channel.unary_stream(path("Flood"))(next(names), timeout=60) for _ in range(12)]
            for call in calls:
                assert await call.read() == BLOCK
                call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calls[-1].read()
            senders = [Sender(channel, MIB) for _ in range(12)]
            await until(lambda: all(sender.sent for sender in senders), 10)  # noqa: B023
            for sender in senders:
                await sender.end()
            await neighbours(channel)
