"""The demo's gRPC service and its caller, without a mesh between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from aiohttp import ClientSession

from pillion.demo import payments
from pillion.demo.payments_pb2 import HistoryRequest
from pillion.demo.payments_pb2_grpc import PaymentsStub, add_PaymentsServicer_to_server
from tests.support.echo import Echo, serving

grpc.aio.init_grpc_aio()  # its sockets live as long as the process: they are not of one test

WEB = "spiffe://pillion.local/service/web"
HEADERS = {"x-forwarded-client-cert": f"By=x;URI={WEB}", "traceparent": "00-1-2-01"}


@pytest.fixture
async def ledger() -> AsyncIterator[Echo]:
    """Whom `payments` takes for its HTTP proxy."""
    async with serving("ledger") as app:
        yield app


@asynccontextmanager
async def channel(ledger: Echo, kind: type[payments.Payments] = payments.Payments) -> AsyncIterator[grpc.aio.Channel]:
    """To a server of its own."""
    server = grpc.aio.server()
    async with ClientSession(proxy=f"http://127.0.0.1:{ledger.port}") as client:
        add_PaymentsServicer_to_server(kind("v7", client), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with payments.channel(f"http://127.0.0.1:{port}") as opened:
            yield opened
        await server.stop(None)


async def test_a_charge_is_booked_and_remembered(ledger: Echo) -> None:
    async with channel(ledger) as opened:
        for number in range(1, 6):
            good, answer = await payments.pay(opened, HEADERS)
            assert good
            assert answer["grpc"] == [
                {"method": "Charge", "kind": "unary", "status": "OK", "messages": 1},
                {"method": "History", "kind": "stream", "status": "OK", "messages": min(number, 3)},
            ]
        assert (answer["service"], answer["version"], answer["peer"]) == ("payments", "v7", WEB)
        assert answer["calls"]["ledger"]["name"] == "ledger"
        assert [(it.path, it.header("traceparent")) for it in ledger.requests] == [("http://ledger/", "00-1-2-01")] * 5
        stub = PaymentsStub(opened)
        for count, numbers in ((0, []), (2, [4, 5]), (9, [1, 2, 3, 4, 5])):
            assert [it.number async for it in stub.History(HistoryRequest(count=count))] == numbers


async def test_what_the_ledger_did_not_book_is_no_charge(ledger: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> tuple[bool, dict[str, int]]:
        return False, {"status": 503}

    monkeypatch.setattr(payments, "get", refused)
    async with channel(ledger) as opened:
        good, answer = await payments.pay(opened, {})
        assert not good
        assert answer["grpc"] == [
            {"method": "Charge", "kind": "unary", "status": "UNAVAILABLE", "messages": 0,
             "details": 'the ledger: {"status": 503}'},
        ]  # fmt: skip
        assert [it async for it in PaymentsStub(opened).History(HistoryRequest(count=9))] == []


class Broken(payments.Payments):
    async def History(self, request: HistoryRequest, context: payments.Context):
        yield payments.Receipt()
        await context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")


async def test_a_stream_that_breaks_is_a_failure(ledger: Echo) -> None:
    async with channel(ledger, Broken) as opened:
        good, answer = await payments.pay(opened, {})
    assert not good
    assert answer["service"] == "payments"
    assert answer["grpc"][1] == {
        "method": "History", "kind": "stream", "status": "DATA_LOSS", "messages": 1, "details": "the rest is gone",
    }  # fmt: skip
