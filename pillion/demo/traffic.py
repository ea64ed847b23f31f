"""Steady, open-loop traffic into the storefront: requests start on a schedule, whatever earlier ones do.

The client stands beside the sidecar of a service of its own, `visitor`, as any app stands beside its sidecar:
it sends plain HTTP with `Host: storefront` to the local outbound port. The storefront's answers say which gRPC calls it
made for them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

MAX_IN_FLIGHT = 200
"""Requests; one that would exceed it is not sent and counts as a failure."""

TIMEOUT = 5.0
"""Seconds for one request, the body included."""


@dataclass(slots=True)
class GrpcTotals:
    """The storefront's gRPC calls, by what its answers say of them."""

    calls: int = 0  # unary
    streams: int = 0  # server-streaming
    messages: int = 0  # that came, of both kinds
    failures: int = 0  # calls and streams that ended with another status than OK

    def add(self, answer: Any) -> None:
        """What pay() of payments.py says, in an answer of the storefront's; any other answer adds nothing."""
        for call in _grpc_calls(answer):
            if call["kind"] == "stream":
                self.streams += 1
            else:
                self.calls += 1
            self.messages += call["messages"]
            self.failures += call["status"] != "OK"


def _grpc_calls(answer: Any) -> list[dict[str, Any]]:
    for name in ("calls", "payments", "grpc"):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer or []


@dataclass(slots=True)
class Totals:
    """What the traffic saw. `failures` is the sum of `reasons`; a request in flight is in neither yet."""

    requests: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    grpc: GrpcTotals = field(default_factory=GrpcTotals)

    @property
    def failures(self) -> int:
        return self.reasons.total()


class Traffic:
    """Use as: start(), any amount of time, await stop(). `totals` may be read at any time."""

    def __init__(self, url: str, host: str, rate: float) -> None:
        """`rate` is requests per second to `url` with the header `Host: host`."""
        self.totals = Totals()
        self._url = url
        self._headers = {"Host": host}
        self._interval = 1 / rate
        self._session: ClientSession | None = None
        self._schedule: asyncio.Task[None] | None = None
        self._in_flight: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._session = ClientSession(timeout=ClientTimeout(total=TIMEOUT))
        self._schedule = asyncio.create_task(self._run(self._session))

    async def stop(self) -> None:
        """No new requests; wait for those in flight (at most TIMEOUT), then close the connections."""
        if self._schedule is None or self._session is None:
            return
        self._schedule.cancel()
        await asyncio.gather(self._schedule, return_exceptions=True)
        await asyncio.gather(*self._in_flight)
        await self._session.close()
        self._schedule = self._session = None

    async def _run(self, session: ClientSession) -> None:
        due = time.monotonic()
        while True:
            if len(self._in_flight) < MAX_IN_FLIGHT:
                task = asyncio.create_task(self._request(session))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
            else:
                self._count(f"not sent: {MAX_IN_FLIGHT} requests in flight")
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _request(self, session: ClientSession) -> None:
        reason = None
        try:
            async with session.get(self._url, headers=self._headers) as response:
                body = await response.read()
                if response.content_type == "application/json":
                    self.totals.grpc.add(json.loads(body))
                if response.status != 200:
                    reason = f"status {response.status}: {body[:300].decode('utf-8', 'replace')}"
        except TimeoutError:
            reason = f"no answer within {TIMEOUT:g} s"
        except (ClientError, OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
        self._count(reason)

    def _count(self, reason: str | None) -> None:
        self.totals.requests += 1
        if reason is not None:
            # Bodies differ from one failure to the next: keep the first 50 kinds apart, lump the rest.
            known = reason in self.totals.reasons or len(self.totals.reasons) < 50
            self.totals.reasons[reason if known else "other"] += 1
