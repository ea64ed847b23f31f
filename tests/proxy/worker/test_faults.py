"""Faults hit tries: what retries, outlier detection, deadlines, counters and the log make of them."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.config.cluster import CircuitBreakers, OutlierDetection
from proxy.config.fault import FAULT, Fault, FaultAbort, FaultDelay
from proxy.config.listener import AccessLog, HttpFilter
from proxy.config.model import StringMatcher
from proxy.config.route import (
    ForwardAction,
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from proxy.config.route import WeightedCluster as Weighted
from proxy.config.snapshot import Snapshot
from proxy.http.heads import RequestHead
from proxy.routing.table import RouteTable
from proxy.telemetry.counters import Counters
from proxy.worker import faults
from tests.support.worker import Worker, snapshot, upstream, worker

NAME = "envoy.filters.http.fault"
ABORT = Fault(abort=FaultAbort(503, fraction=1.0))
CALL = b"POST / HTTP/1.1\r\nhost: app\r\nte: trailers\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"


class App:
    """Answers 200 and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if b"content-length: 3" in head:
                await reader.readexactly(3)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


@pytest.fixture
async def app() -> AsyncIterator[tuple[App, int]]:
    handler = App()
    async with upstream(handler) as port:
        yield handler, port


def faulty(one: Worker, port: int, fault: Fault, log: Path | None = None, **how: Any) -> Snapshot:
    """One listener with a fault, in front of one app."""
    form = (("f", "%RESPONSE_FLAGS%"), ("d", "%RESPONSE_CODE_DETAILS%"))
    logs = (AccessLog(str(log), json_format=form),) if log is not None else ()
    http = {"http_filters": (HttpFilter(NAME, FAULT, fault),), "access_logs": logs}
    return snapshot(one.port, port, http=http, **how)


def get(*fields: bytes, method: bytes = b"GET") -> bytes:
    lines = [method + b" / HTTP/1.1", b"host: app", *fields, b"connection: close", b"", b""]
    return b"\r\n".join(lines)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def lines(log: Path, count: int) -> list[dict[str, str]]:
    async with asyncio.timeout(5):
        while len(found := log.read_text().splitlines()) < count:  # noqa: ASYNC110, ASYNC240  # another process's file
            await asyncio.sleep(0.02)
    return [json.loads(line) for line in found]


async def held(one: Worker, count: int) -> None:
    async with asyncio.timeout(5):
        while await one.gauge("fault_active") != count:  # noqa: ASYNC110  # another process's gauge
            await asyncio.sleep(0.005)


async def test_an_aborted_try_is_an_answer(one: Worker, app: tuple[App, int], tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert await one.apply(faulty(one, app[1], ABORT, log)) is None
    answer = await one.talk(get())
    assert status(answer) == 503
    assert answer.endswith(b"\r\n\r\nfault filter abort")
    assert (await one.talk(get(method=b"HEAD"))).endswith(b"\r\n\r\n")
    assert b"grpc-status: 14" in await one.talk(CALL + b"connection: close\r\n\r\n")
    assert await one.apply(faulty(one, app[1], Fault(abort=FaultAbort(204, fraction=1.0)), log)) is None
    assert (await one.talk(get())).endswith(b"\r\n\r\n")
    assert await one.apply(faulty(one, app[1], Fault(abort=FaultAbort(None, 7, fraction=1.0)), log)) is None
    assert status(await one.talk(get())) == 403
    refused = await one.talk(CALL + b"connection: close\r\n\r\n")
    assert status(refused) == 200
    assert b"grpc-status: 7\r\n" in refused
    assert b"grpc-message: fault filter abort" in refused
    assert app[0].asked == 0
    assert await one.count("fault_aborts_injected_total", cluster="app") == 6
    assert await one.count("response_flags_total", flag="FI") == 6
    assert await lines(log, 6) == [{"f": "FI", "d": "fault_filter_abort"}] * 6


async def test_outlier_detection_sees_aborts(one: Worker, app: tuple[App, int]) -> None:
    outlier = OutlierDetection(consecutive_5xx=2, max_ejection_percent=100)
    fault = Fault(abort=FaultAbort(fraction=1.0))
    assert await one.apply(faulty(one, app[1], fault, cluster={"outlier_detection": outlier})) is None
    for ejected in (0, 1):
        assert status(await one.talk(get(b"x-envoy-fault-abort-request: 500"))) == 500
        assert await one.count("outlier_detection_ejections_detected_total", cluster="app") == ejected


async def test_conditions(one: Worker, app: tuple[App, int]) -> None:
    fault = Fault(
        abort=FaultAbort(fraction=1.0),
        upstream_cluster="app",
        headers=(HeaderMatcher("x-user", StringMatcher("exact", "me")),),
        downstream_nodes=("n1",),
    )
    assert await one.apply(faulty(one, app[1], fault)) is None
    hit = (b"x-user: me", b"x-envoy-downstream-service-node: n1", b"x-envoy-fault-abort-request: 418")
    assert status(await one.talk(get(*hit))) == 418
    for missing in range(3):
        assert status(await one.talk(get(*hit[:missing], *hit[missing + 1 :]))) == 200
    assert status(await one.talk(get(*hit, b"x-envoy-fault-abort-request-percentage: 0"))) == 200
    assert status(await one.talk(get(*hit[:2], b"x-envoy-fault-abort-grpc-request: 5"))) == 404
    assert await one.apply(faulty(one, app[1], replace(fault, upstream_cluster="other"))) is None
    assert status(await one.talk(get(*hit))) == 200


async def test_a_delayed_try_waits_and_goes_on(one: Worker, app: tuple[App, int]) -> None:
    assert await one.apply(faulty(one, app[1], Fault(FaultDelay(0.05, 1.0)))) is None
    began = time.monotonic()
    post = b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
    assert status(await one.talk(post)) == 200
    assert 0.05 <= time.monotonic() - began < 2
    both = Fault(FaultDelay(None, 1.0), FaultAbort(500, fraction=1.0))
    assert await one.apply(faulty(one, app[1], both)) is None
    began = time.monotonic()
    assert status(await one.talk(get(b"x-envoy-fault-delay-request: 40"))) == 500
    assert time.monotonic() - began >= 0.04
    assert app[0].asked == 1
    assert await one.count("fault_delays_injected_total", cluster="app") == 2
    assert await one.count("response_flags_total", flag="DI") == 2
    assert await one.count("response_flags_total", flag="FI") == 1


async def test_deadlines_and_clients_end_a_delay(one: Worker, app: tuple[App, int]) -> None:
    config = faulty(
        one, app[1], Fault(FaultDelay(60.0, 1.0), max_active=1), action={"timeout": 0.05}, cluster={
            "outlier_detection": OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)},
    )  # fmt: skip
    assert await one.apply(config) is None
    assert status(await one.talk(get())) == 504
    assert await one.gauge("fault_active") == 0
    assert await one.count("outlier_detection_ejections_detected_total", cluster="app") == 1
    assert await one.apply(faulty(one, app[1], Fault(FaultDelay(60.0, 1.0), max_active=1))) is None
    _, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(get())
    await held(one, 1)
    # The same count goes on in the next configuration, and leaves no room for another.
    assert (
        await one.apply(faulty(one, app[1], Fault(FaultDelay(60.0, 1.0), max_active=1), action={"timeout": 9.0}))
        is None
    )
    assert status(await one.talk(get())) == 200
    assert await one.count("fault_overflow_total") == 1
    # A reset: what only ends may still want its answer.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await held(one, 0)
    await one.at_rest()
    assert app[0].asked == 1


async def test_retries_see_faults_and_each_try_has_its_own(one: Worker, app: tuple[App, int]) -> None:
    retries = RetryPolicy(frozenset(("5xx",)), 3, base_interval=0.001)
    assert await one.apply(faulty(one, app[1], ABORT, action={"retry": retries})) is None
    assert status(await one.talk(get())) == 503
    assert await one.count("fault_aborts_injected_total") == 4
    late = RetryPolicy(frozenset(("gateway-error",)), 1, per_try_timeout=0.02)
    assert await one.apply(faulty(one, app[1], Fault(FaultDelay(60.0, 1.0)), action={"retry": late})) is None
    assert status(await one.talk(get())) == 504
    assert await one.count("fault_delays_injected_total") == 2
    assert await one.gauge("fault_active") == 0
    half = Fault(abort=FaultAbort(503, fraction=0.5))
    many = {"circuit_breakers": CircuitBreakers(max_retries=1000)}
    assert await one.apply(faulty(one, app[1], half, action={"retry": retries}, cluster=many)) is None
    answers = [status(await one.talk(get())) for _ in range(30)]
    assert answers.count(200) > 22  # 15 of 16 on average; without retries half


async def test_a_route_says_otherwise(one: Worker, app: tuple[App, int]) -> None:
    config = faulty(one, app[1], ABORT)
    listener = config.listeners["main"]
    http = listener.filter_chain.http
    assert http is not None
    assert http.route_config is not None
    (host,) = http.route_config.virtual_hosts
    for place, wanted in (("configuration", 418), ("host", 403), ("route", 200)):
        route = replace(host.routes[0], fault=Fault() if place == "route" else None)
        hosted = replace(host, routes=(route,), fault=Fault(abort=FaultAbort(403, fraction=1.0)))
        if place == "configuration":
            hosted = host
        routes = replace(http.route_config, virtual_hosts=(hosted,), fault=Fault(abort=FaultAbort(418, fraction=1.0)))
        chain = replace(listener.filter_chain, http=replace(http, route_config=routes))
        assert await one.apply(replace(config, listeners={"main": replace(listener, filter_chain=chain)})) is None
        assert status(await one.talk(get())) == wanted


def test_a_fault_that_ends_does_not_begin_anew_with_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(faults, "monotonic", lambda: clock)
    short, other = Fault(abort=FaultAbort(503, fraction=1.0), duration=60.0), Fault(upstream_cluster="b", duration=60.0)
    head = RequestHead(b"GET", b"/", b"a", [])

    def built(of_route: Fault, before: faults.Faults | None) -> tuple[faults.Faults, bool]:
        action = ForwardAction((Weighted("app"),))
        host = VirtualHost("v", ("*",), (Route(RouteMatch("prefix", "/"), action, fault=of_route),))
        routes = RouteConfiguration("r", (host,))
        made = faults.Faults("main", Fault(), routes, Counters(), before)
        route = RouteTable(routes, str).match(head)
        assert route is not None
        return made, made.policy(route).applies(head, "app", clock)

    first, there = built(short, None)
    assert there
    clock = 150.0
    second, there = built(short, first)
    assert there
    clock = 160.0
    third, there = built(short, second)
    assert not there
    fourth, there = built(other, third)
    assert not there
    assert built(short, fourth)[1]  # it was taken away meanwhile
