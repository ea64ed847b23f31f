"""Clients that leave at random moments: afterwards connections, pools, timers and memory are where they began.

LEAK_REQUESTS=100000 in the environment makes it a long run.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.config.listener import AccessLog
from proxy.config.snapshot import Snapshot
from tests.support import storm
from tests.support.inspected_worker import Inspected, Report, inspected
from tests.support.worker import snapshot, upstream

REQUESTS = int(os.environ.get("LEAK_REQUESTS", "5000"))
ROUNDS = max(2, REQUESTS // 2500)
MIB = 1024 * 1024
CONNECTIONS = 20
"""Fewer than the clients at once: some wait, and leave while they wait."""


def configuration(one: Inspected, port: int, log: Path) -> Snapshot:
    return snapshot(
        one.port,
        port,
        cluster={"circuit_breakers": CircuitBreakers(max_connections=CONNECTIONS)},
        action={"timeout": 0.3},
        http={
            "access_logs": (AccessLog(str(log), text_format="%RESPONSE_CODE% %RESPONSE_FLAGS%\n"),),
            "request_headers_timeout": 0.5,
            "stream_idle_timeout": 1.0,
        },
    )


async def at_rest(one: Inspected) -> Report:
    """Wait until nothing is active and no connection has a deadline; idle ones are left."""
    async with asyncio.timeout(10):
        while True:
            active = await one.gauge("downstream_cx_active") + await one.gauge("upstream_rq_active")
            if not active and (report := await one.report()).timed <= report.clusters["app"]["idle"]:
                return report
            await asyncio.sleep(0.1)


async def emptied(one: Inspected) -> Report:
    """At rest, and without any endpoint: idle connections are closed."""
    assert await one.apply(snapshot(one.port)) is None
    await one.until_gauge("upstream_cx_active")
    return await at_rest(one)


async def test_a_storm_of_aborts_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(7)
    log = tmp_path / "access.log"
    resident = []
    async with inspected(tmp_path) as one, upstream(storm.app) as port:
        assert await one.apply(configuration(one, port, log)) is None
        await storm.storm(one.port, 500, 50, rng)  # what is made once: caches, free lists
        await at_rest(one)
        before, descriptors = await emptied(one), one.descriptors()
        assert await one.apply(configuration(one, port, log)) is None
        for _ in range(ROUNDS):
            done = await storm.storm(one.port, REQUESTS // ROUNDS, 50, rng)
            assert len(done) == len(storm.KINDS)
            resident.append(one.resident() / MIB)
        full = await at_rest(one)
        after = await emptied(one)
        left = one.descriptors() - descriptors
        logged = log.read_text().count("\n")
        counted = await one.count("downstream_rq_total")
    with capfd.disabled():
        print("\nresident MiB:", *(f"{value:.1f}" for value in resident))

    idle = full.clusters["app"]["idle"]
    connections = {"connections": idle, "endpoint connections": idle, "idle": idle}
    nothing = {"active": 0, "pending": 0, "retrying": 0, "endpoint active": 0, "connecting": 0, "waiters": 0}
    assert full.clusters["app"] == connections | nothing
    assert idle <= CONNECTIONS
    assert full.tasks == after.tasks == 0
    assert after.timed == 0
    assert left == 0
    assert after.ours() == before.ours()
    assert sum(after.objects.values()) - sum(before.objects.values()) < 200
    assert resident[-1] - resident[0] < 16
    assert counted == logged  # every request ended in exactly one record of the access log
    err = capfd.readouterr().err
    assert "Traceback" not in err, err[err.index("Traceback") :][:3000]
