"""The supervisor with real processes and real sockets."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.agent.errors import BindError
from proxy.agent.supervisor import RestartBackoff, Supervisor
from proxy.config.cluster import Cluster, LoadAssignment
from proxy.config.listener import FilterChain, HttpConnectionManager, Listener
from proxy.config.model import Address, TlsCertificate
from proxy.config.route import RouteConfiguration
from proxy.config.snapshot import Snapshot

SCRIPT = str(Path(__file__).parents[2] / "support" / "channel_worker.py")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def snapshot(*ports, clusters=("a",), key_id=None):
    http = HttpConnectionManager("s", route_config=RouteConfiguration("r", ()))
    return Snapshot(
        listeners={f"l{p}": Listener(f"l{p}", Address("127.0.0.1", p), FilterChain(http)) for p in ports},
        clusters={c: Cluster(c, "STATIC", c) for c in clusters},
        assignments={c: LoadAssignment(c, ()) for c in clusters},
        certificates={"default": TlsCertificate("default", "CHAIN", key_id)} if key_id else {},
    )


@asynccontextmanager
async def supervisor(mode="serve", count=1, **options):
    stats = []
    subject = Supervisor(
        count,
        on_stats=lambda pid, s: stats.append((pid, s)),
        command=(sys.executable, "-P", SCRIPT, mode),
        **options,
    )
    subject.seen = stats
    subject.start()
    try:
        yield subject
    finally:
        await subject.abandon()


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            return (await reader.read()).decode().split(" ")
    finally:
        writer.close()


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is awaited happens in other processes
            await asyncio.sleep(0.01)


async def test_push_reaches_every_worker_and_serves():
    port = free_port()
    async with supervisor(count=2) as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        assert int((await ask(port))[0]) in subject.pids
        assert len(subject.pids) == 2


async def test_updates_carry_deltas_keys_and_sockets_of_new_listeners():
    first, second = free_port(), free_port()
    async with supervisor() as subject:
        subject.push(snapshot(first, key_id="k1"), {"default": b"PEM1"})
        assert await subject.settled(10) is None
        assert (await ask(first))[1:] == ["a", "k1/PEM1"]
        subject.push(snapshot(first, second, clusters=("a", "b"), key_id="k2"), {"default": b"PEM2"})
        assert await subject.settled(10) is None
        assert (await ask(second))[1:] == ["a,b", "k2/PEM2"]
        subject.push(snapshot(second, clusters=("b",)), {})
        assert await subject.settled(10) is None
        await until(lambda: f"127.0.0.1:{first}" not in subject.sockets)
        with pytest.raises(ConnectionRefusedError):
            await ask(first)
        subject.push(snapshot(first, second), {})  # and back
        assert await subject.settled(10) is None
        assert (await ask(first))[1] == "a"


async def test_killed_worker_is_replaced_and_no_connection_is_refused():
    port = free_port()
    async with supervisor() as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        victim = subject.pids[0]
        answers, lost, loop = [], 0, asyncio.get_running_loop()

        async def load():
            nonlocal lost
            while True:
                try:
                    answer = await ask(port)  # a refused connection raises ConnectionRefusedError: the test fails
                except ConnectionResetError:
                    lost += 1
                    continue
                answers.append((loop.time(), answer[0]))
                await asyncio.sleep(0.002)

        task = asyncio.create_task(load())
        await until(lambda: len(answers) > 20)
        killed = loop.time()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: answers[-1][1] not in ("", str(victim)))
        assert answers[-1][0] - killed < 2.0
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert subject.restarts == 1
        assert lost <= 1


async def test_crash_loop_backs_off(caplog):
    async with supervisor("crash") as subject:
        subject.push(snapshot(free_port()), {})
        await until(lambda: subject.restarts >= 3)
        assert subject.restarts < 8
        assert "status=3" in caplog.text
        assert "restart_in=0.0s" in caplog.text
        assert "restart_in=0.1s" in caplog.text


async def test_hung_worker_is_killed_and_replaced():
    port = free_port()
    async with supervisor("hang", answer_timeout=1.0) as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        hung = subject.pids[0]
        subject.push(snapshot(port, clusters=("a", "b")), {})
        await until(lambda: subject.pids and subject.pids[0] != hung)
        assert await subject.settled(10) is None


async def test_refused_configuration_leaves_the_one_before():
    port = free_port()
    async with supervisor("refuse", count=2) as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        subject.push(snapshot(port, clusters=("a", "bad")), {})
        assert "is bad" in await subject.settled(10)
        os.kill(subject.pids[0], signal.SIGKILL)
        await until(lambda: subject.restarts == 1 and len(subject.pids) == 2)
        subject.push(snapshot(port, clusters=("a", "good")), {})
        assert await subject.settled(10) is None
        assert (await ask(port))[1] == "a,good"


async def test_port_in_use_names_listener_and_address_and_changes_nothing():
    port, free = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        async with supervisor() as subject:
            subject.push(snapshot(port), {})
            assert await subject.settled(10) is None
            with pytest.raises(BindError) as caught:
                subject.push(snapshot(port, free, used), {})
            assert str(caught.value) == (
                f"listener 'l{used}': cannot listen on 127.0.0.1:{used}: Address already in use"
            )
            assert f"127.0.0.1:{free}" not in subject.sockets
            assert (await ask(port))[1] == "a"


async def test_stop_drains_and_kills_who_does_not_end():
    port = free_port()
    async with supervisor("serve") as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        await subject.stop(5.0)
        assert subject.pids == ()
        assert subject.restarts == 0
    async with supervisor("stubborn") as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        started = asyncio.get_running_loop().time()
        await subject.stop(0.1)
        assert 1.0 < asyncio.get_running_loop().time() - started < 3.0
        assert subject.pids == ()


async def test_flush_brings_the_counters():
    port = free_port()
    async with supervisor(count=2) as subject:
        subject.push(snapshot(port), {})
        assert await subject.settled(10) is None
        await ask(port)
        subject.seen.clear()
        await subject.flush(5.0)
        assert {pid for pid, _ in subject.seen} == set(subject.pids)
        assert sum(value for _, s in subject.seen for _, value in s.counters) == 1


def test_backoff_doubles_to_its_limit_and_starts_afresh_after_a_good_life():
    backoff = RestartBackoff()
    assert [backoff.died(1.0) for _ in range(9)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.died(11.0) == 0.0
    assert backoff.died(1.0) == 0.1
