"""Outlier detection in a real worker: what counts against an endpoint, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest

from proxy.config.cluster import CircuitBreakers, Endpoint, LoadAssignment, OutlierDetection
from proxy.config.model import Address
from proxy.config.route import RetryPolicy
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
CALL = (
    b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\nte: trailers\r\n"
    b"connection: te, close\r\ncontent-length: 0\r\n\r\n"
)
DETECTED = "outlier_detection_ejections_detected_total"
SOON = 0.3
"""Seconds: the ejection time here."""


class App:
    """An upstream that answers each request with `answer`; nothing if it is empty."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            if self.answer:
                writer.write(self.answer)
            else:
                await asyncio.sleep(60)


def status(code: int, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {code} X\r\ncontent-length: 0\r\n{lines}\r\n".encode()


def trailers(code: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"1\r\nx\r\n0\r\ngrpc-status: %d\r\n\r\n" % code


def options(cluster: dict[str, Any] | None = None, action: dict[str, Any] | None = None, **detection: Any) -> Any:
    config = {"consecutive_5xx": 3, "always_eject_one_host": True, "base_ejection_time": SOON, **detection}
    return {"cluster": {"outlier_detection": OutlierDetection(**config), **(cluster or {})}, "action": action or {}}


async def detected(one: Worker, kind: str) -> int:
    return await one.count(DETECTED, detector=kind)


async def test_a_failing_endpoint_is_ejected_and_comes_back() -> None:
    bad, good = App(status(500)), App(status(200))
    async with worker() as one, upstream(bad) as first, upstream(good) as second:
        assert await one.apply(snapshot(one.port, first, second, **options())) is None
        answers = [(await one.talk(GET))[9:12] for _ in range(12)]
        assert (bad.requests, good.requests) == (3, 9)
        assert answers.count(b"500") == 3
        assert await one.count("outlier_detection_ejections_enforced_total", detector="consecutive_5xx") == 1
        assert await one.gauge("outlier_detection_ejections_active") == 1
        bad.answer = status(200)
        async with asyncio.timeout(10 * SOON):
            while await one.gauge("outlier_detection_ejections_active"):  # noqa: ASYNC110  # another process's gauge
                await asyncio.sleep(0.05)
        for _ in range(4):
            assert (await one.talk(GET))[9:12] == b"200"
        assert bad.requests == 5


ENOUGH = 8
CASES: dict[str, tuple[bytes, bytes, Any, str]] = {
    # answer, request, options, detector
    "5xx": (status(501), GET, {}, "consecutive_5xx"),
    "gateway": (
        status(502), GET, {"consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100},
        "consecutive_gateway_failure",
    ),
    "a gRPC status in the head": (status(200, grpc_status="14", content_type="application/grpc"), CALL, {}, "consecutive_5xx"),
    "a gRPC status in the trailers": (trailers(14), CALL, {}, "consecutive_5xx"),
    "a gRPC status that is the caller's fault": (trailers(3), CALL, {}, ""),
    "trailers of what is no call": (trailers(14), GET, {}, ""),
    "4xx": (status(404), GET, {}, ""),
    "no HTTP": (b"SSH-2.0\r\n\r\n", GET, {}, "consecutive_5xx"),
    "too late": (b"", GET, {"action": {"timeout": 0.03}}, "consecutive_5xx"),
    "too late, split": (
        b"", GET,
        {"action": {"timeout": 0.03}, "split_external_local_origin_errors": True, "consecutive_local_origin_failure": 3},
        "consecutive_local_origin_failure",
    ),
    "late in the middle of the answer": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", GET, {"action": {"timeout": 0.03}}, ""
    ),
    "no room": (b"", GET, {"action": {"timeout": 0.03}, "cluster": {"circuit_breakers": CircuitBreakers(max_requests=0)}}, ""),
    "no place to wait": (b"", GET, {"cluster": {"circuit_breakers": CircuitBreakers(max_pending_requests=0)}}, ""),
}  # fmt: skip


async def test_what_counts() -> None:
    async with worker() as one, upstream(App(status(200))) as good:
        for name, (answer, request, given, kind) in CASES.items():
            app = App(answer)
            config = options(**{"base_ejection_time": 60.0, "max_ejection_time": 60.0, **given})
            before = await detected(one, kind) if kind else await one.count(DETECTED)
            async with upstream(app) as port:
                assert await one.apply(snapshot(one.port, port, good, **config)) is None
                for _ in range(ENOUGH):
                    with contextlib.suppress(ConnectionError):
                        await one.talk(request)
                after = await detected(one, kind) if kind else await one.count(DETECTED)
                assert after - before == (1 if kind else 0), name


async def test_who_waits_for_room_blames_nobody() -> None:
    config = options({"circuit_breakers": CircuitBreakers(max_connections=1)}, {"timeout": 0.1})
    async with worker() as one, upstream(App(b"")) as silent, upstream(App(b"")) as other:
        assert await one.apply(snapshot(one.port, silent, other, **config)) is None
        answers = await asyncio.gather(*(one.talk(GET) for _ in range(10)))
        assert [answer[9:12] for answer in answers] == [b"504"] * 10
        assert await one.count(DETECTED) == 0  # each endpoint was late once, and nine of ten never got there


@pytest.mark.parametrize("split", [False, True])
async def test_connections_that_fail_count_even_when_nobody_waits_any_more(split: bool) -> None:
    retry = {"action": {"retry": RetryPolicy(frozenset(("connect-failure",)), 1)}}
    kind = "consecutive_local_origin_failure" if split else "consecutive_5xx"
    async with worker() as one, upstream(App(status(200))) as good:
        config = options(**retry, split_external_local_origin_errors=split, consecutive_local_origin_failure=3)
        assert await one.apply(snapshot(one.port, free_port(), good, **config)) is None
        answers = [(await one.talk(GET))[9:12] for _ in range(10)]
        assert answers == [b"200"] * 10
        assert await detected(one, kind) == 1
        # An address where nobody answers, and a route that waits for less than connect_timeout.
        config = options({"connect_timeout": 0.1}, {"timeout": 0.05, "retry": None}, base_ejection_time=60.0)
        base = snapshot(one.port, good, **config)
        endpoints = (*base.assignments["app"].endpoints, Endpoint(Address("192.0.2.1", 9)))
        assert await one.apply(replace(base, assignments={"app": LoadAssignment("app", endpoints)})) is None
        for _ in range(8):
            await one.talk(GET)
        async with asyncio.timeout(5):
            while await one.count(DETECTED, detector="consecutive_5xx") <= (0 if split else 1):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
