"""kill -9 and SIGTERM of a sidecar's processes, under load."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pillion.demo.mesh import Sidecar
from pillion.demo.processes import sessions
from tests.support import echo as echo_upstream
from tests.support.echo import Echo
from tests.support.harness import Harness, kill
from tests.support.http import Response, request
from tests.support.load import Load, Outcome
from tests.support.wait import wait_until

IN_FLIGHT = 0.1
"""Seconds after a kill in which a request may still count as in flight: it was on its way to the dead one."""


@dataclass(frozen=True)
class Pair:
    mesh: Harness
    web: Sidecar
    echo: Sidecar
    app: Echo


@pytest.fixture
def pair(work: Harness) -> Iterator[Pair]:
    work.up_control_plane()
    work.apply("kind: Service\nname: web\n---\nkind: Service\nname: echo\n")
    with echo_upstream.in_thread() as app:
        web = work.start_sidecar("web", 9, options=["--drain-time", "3s"])
        echo = work.up_sidecar("echo", app.port, options=["--drain-time", "3s"])
        wait_until(web.ready, 30)
        work.wait_for(web, "echo")
        yield Pair(work, web, echo, app)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_only_those_in_flight_failed(load: Load, killed: float) -> None:
    print(load.results())
    failed = [outcome for outcome in load.failures() if outcome.began > killed + IN_FLIGHT]
    assert not failed, describe(failed, killed)
    earlier = [outcome for outcome in load.failures() if outcome.ended < killed]
    assert not earlier, describe(earlier, killed)
    served = [o.ended - killed for o in load.outcomes if o.result == "200" and o.began > killed]
    assert min(served) < 2.0, f"the new worker answered first after {min(served):.2f} s"


def describe(outcomes: list[Outcome], at: float) -> list[tuple[str, str, bytes]]:
    return [(o.result, f"began {o.began - at:+.3f} s, ended {o.ended - at:+.3f} s", o.body[:200]) for o in outcomes]


def test_kill_9_of_a_worker_refuses_no_connection(pair: Pair) -> None:
    for victim in (pair.web, pair.echo):
        (worker,) = victim.workers()
        with Load(pair.web.outbound, "echo", rate=100) as load:
            wait_until(lambda load=load: load.results()["200"] >= 50, 10)
            killed = time.monotonic()
            kill(worker)
            time.sleep(3)
        assert load.results()["refused"] == 0
        check_only_those_in_flight_failed(load, killed)
        assert load.results().total() > 250
        (fresh,) = victim.workers()
        assert fresh != worker


def test_kill_9_of_the_agent_ends_its_workers(pair: Pair) -> None:
    workers = pair.echo.workers()
    assert workers
    kill(pair.echo.process.pid)
    wait_until(lambda: not any(map(alive, workers)), 3, "the workers have ended")
    for port in (pair.echo.inbound, pair.echo.outbound, pair.echo.admin):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()


@pytest.mark.parametrize("which", ["web", "echo"])
def test_sigterm_finishes_what_is_in_flight(pair: Pair, which: str) -> None:
    """For the outbound side and for the inbound side."""
    victim: Sidecar = getattr(pair, which)

    def slow() -> Response:
        return request(pair.web.outbound, "/delay/1", host="echo")

    with ThreadPoolExecutor(10) as pool:
        answers = [pool.submit(slow) for _ in range(10)]
        wait_until(lambda: sum(r.path == "/delay/1" for r in pair.app.requests) == 10, 5, "all are in flight")
        victim.process.terminate()
        time.sleep(0.3)
        with pytest.raises(OSError, match="refused"):
            request(victim.outbound if which == "web" else victim.inbound, host="echo")
        assert [answer.result().status for answer in answers] == [200] * 10

    assert victim.process.wait(5) == 0
    assert victim.process.pid not in sessions()


def test_sigterm_is_bounded(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as pool:
        endless = pool.submit(request, pair.web.outbound, "/delay/12", host="echo", timeout=20)
        wait_until(lambda: any(r.path == "/delay/12" for r in pair.app.requests), 5)
        began = time.monotonic()
        pair.web.process.terminate()
        assert pair.web.process.wait(10) == 0
        assert 2.5 < time.monotonic() - began < 6
        assert endless.exception(5) is not None


def test_sigterm_of_one_instance_under_load_loses_nothing(pair: Pair) -> None:
    second = pair.mesh.up_sidecar("echo", pair.app.port, instance="echo-2")
    pair.mesh.wait_for_endpoints(pair.web, "echo", 2)
    with Load(pair.web.outbound, "echo", rate=100) as load:
        wait_until(lambda: load.results()["200"] >= 50, 10)
        began = time.monotonic()
        second.process.signal(signal.SIGTERM)
        assert second.process.wait(8) == 0
        time.sleep(1)
    assert not load.failures(), describe(load.failures(), began)
