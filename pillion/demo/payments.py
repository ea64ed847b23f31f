"""The demo's gRPC service `payments`, and how the storefront calls it. Both are grpcio as it comes: the one listens
without TLS, the other's channel leads to its own sidecar, with the service's name as authority.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from aiohttp import ClientSession
from google.protobuf.json_format import MessageToDict

from pillion.demo.calls import about, get, http_client, passed_on
from pillion.demo.payments_pb2 import ChargeRequest, HistoryRequest, Receipt
from pillion.demo.payments_pb2_grpc import PaymentsServicer, PaymentsStub, add_PaymentsServicer_to_server

Context = grpc.aio.ServicerContext[Any, Any]

REMEMBERED = 100
"""Receipts that an instance keeps for History."""

DEADLINE = 4.0
"""Seconds for one call of the storefront's, the stream included."""

CENTS = 1999
"""What the storefront charges each time."""

LAST = 3
"""Receipts that the storefront asks History for."""


class Payments(PaymentsServicer):
    """Takes charges; its own call goes to the ledger, over HTTP."""

    def __init__(self, version: str, client: ClientSession) -> None:
        self._version = version
        self._client = client
        self._receipts: deque[Receipt] = deque(maxlen=REMEMBERED)
        self._charges = 0

    async def Charge(self, request: ChargeRequest, context: Context) -> Receipt:
        """UNAVAILABLE when the ledger did not book it."""
        metadata = _metadata(context)
        booked, answer = await get(self._client, "ledger", passed_on(metadata))
        if not booked:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the ledger: {json.dumps(answer)[:200]}")
        self._charges += 1
        receipt = Receipt(number=self._charges, cents=request.cents)
        receipt.answer.update(about("payments", self._version, metadata) | {"calls": {"ledger": answer}})
        self._receipts.append(receipt)
        return receipt

    async def History(self, request: HistoryRequest, context: Context) -> AsyncIterator[Receipt]:
        """As the .proto says."""
        receipts = list(self._receipts)
        for receipt in receipts[max(0, len(receipts) - request.count) :]:
            yield receipt


def _metadata(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def serve(version: str, port: int, say_ready: Callable[[], None]) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT, then let calls under way end (2 s at most)."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with http_client() as client:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))  # a port that is taken is an error
        add_PaymentsServicer_to_server(Payments(version, client), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        say_ready()
        await ended.wait()
        await server.stop(2)


def channel(sidecar: str) -> grpc.aio.Channel:
    """To `payments` through the sidecar at this URL."""
    # The sidecar is where the channel connects, not an HTTP proxy that it would ask to CONNECT.
    options = (("grpc.default_authority", "payments"), ("grpc.enable_http_proxy", 0))
    return grpc.aio.insecure_channel(urlsplit(sidecar).netloc, options=options)


async def pay(channel: grpc.aio.Channel, headers: Mapping[str, str]) -> tuple[bool, dict[str, Any]]:
    """Charge, then read the last receipts: (whether both went well, what payments answered).

    The answer's "grpc" lists the calls made: method, kind (unary or stream), status, how many messages came.
    """
    stub = PaymentsStub(channel)
    how: dict[str, Any] = {"metadata": tuple(headers.items()), "timeout": DEADLINE}
    try:
        receipt = await stub.Charge(ChargeRequest(cents=CENTS), **how)
    except grpc.aio.AioRpcError as error:
        return False, {"grpc": [_made("Charge", "unary", 0, error)]}
    made = [_made("Charge", "unary", 1)]
    answer = MessageToDict(receipt.answer) | {"grpc": made}
    messages = 0
    try:
        async for _ in stub.History(HistoryRequest(count=LAST), **how):
            messages += 1
    except grpc.aio.AioRpcError as error:
        made.append(_made("History", "stream", messages, error))
        return False, answer
    made.append(_made("History", "stream", messages))
    return True, answer


def _made(method: str, kind: str, messages: int, error: grpc.aio.AioRpcError | None = None) -> dict[str, Any]:
    call: dict[str, Any] = {"method": method, "kind": kind, "status": "OK", "messages": messages}
    if error is not None:
        call |= {"status": error.code().name, "details": error.details()}
    return call
