"""The traffic counts what it sent and what came of it, and keeps its schedule whatever requests do."""

from __future__ import annotations

import asyncio

import pytest

from pillion.demo import traffic
from pillion.demo.traffic import GrpcTotals, Traffic
from tests.support.echo import Echo, serving
from tests.support.wait import until


async def drive(app: Echo, path: str, requests: int, rate: float = 200) -> Traffic:
    load = Traffic(f"http://127.0.0.1:{app.port}{path}", "storefront", rate)
    load.start()
    await until(lambda: load.totals.requests >= requests, 10)
    await load.stop()
    return load


async def test_answers_are_counted_and_the_host_is_the_services_name() -> None:
    async with serving() as app:
        load = await drive(app, "/", 20)
    assert load.totals.requests == len(app.requests) >= 20
    assert load.totals.failures == 0
    assert {request.header("host") for request in app.requests} == {"storefront"}


async def test_every_other_status_is_a_failure_with_its_reason() -> None:
    async with serving() as app:
        load = await drive(app, "/status/503", 10)
    assert load.totals.failures == load.totals.requests >= 10
    assert all(reason.startswith("status 503") for reason in load.totals.reasons)


async def test_a_connection_that_closes_is_a_failure() -> None:
    async with serving() as app:
        load = await drive(app, "/close", 3)
    assert load.totals.failures == load.totals.requests >= 3


async def test_nobody_there_is_a_failure() -> None:
    async with serving() as app:
        pass
    load = await drive(app, "/", 3)
    assert load.totals.failures == load.totals.requests >= 3


async def test_a_slow_service_does_not_slow_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "TIMEOUT", 0.5)
    async with serving() as app:
        load = Traffic(f"http://127.0.0.1:{app.port}/delay/30", "storefront", 100)
        load.start()
        await until(lambda: len(app.requests) >= 20, 5)
        await load.stop()
    assert set(load.totals.reasons) == {"no answer within 0.5 s"}
    assert load.totals.failures == load.totals.requests >= 20


async def test_what_cannot_be_sent_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MAX_IN_FLIGHT", 2)
    monkeypatch.setattr(traffic, "TIMEOUT", 0.3)
    async with serving() as app:
        load = Traffic(f"http://127.0.0.1:{app.port}/delay/30", "storefront", 200)
        load.start()
        await until(lambda: load.totals.requests >= 10, 5)
        await load.stop()
    assert load.totals.reasons["not sent: 2 requests in flight"] >= 10


def test_grpc_calls_are_counted_by_what_the_answers_say() -> None:
    made = [
        {"method": "Charge", "kind": "unary", "status": "OK", "messages": 1},
        {"method": "History", "kind": "stream", "status": "DATA_LOSS", "messages": 2},
    ]
    totals = GrpcTotals()
    for answer in ({"calls": {"payments": {"grpc": made}}}, {"calls": {"payments": {"error": "x"}}}, {}, [], "x"):
        totals.add(answer)
    assert totals == GrpcTotals(calls=1, streams=1, messages=3, failures=1)


async def test_kinds_of_failure_are_bounded() -> None:
    load = Traffic("http://127.0.0.1:9/", "x", 1)
    for number in range(100):
        load._count(f"reason {number}")
    assert load.totals.failures == 100
    assert len(load.totals.reasons) == 51


async def test_stop_without_start_is_nothing() -> None:
    await Traffic("http://127.0.0.1:9/", "x", 1).stop()
    await asyncio.sleep(0)
