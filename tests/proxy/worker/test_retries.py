"""Retries through a real worker: which answers are dropped, how often, when, and what is never sent twice."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.config.route import RetryPolicy
from tests.support.worker import Worker, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLOSE = b"connection: close\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


class App:
    """Answers with `answers` in turn, then with OK. None: breaks the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.at: list[float] = []
        self.asked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self.requests.append(head + (await reader.readexactly(int(length)) if length else b""))
            self.at.append(time.monotonic())
            self.asked.set()
            answer = self.answers.pop(0) if self.answers else OK
            if answer is None:
                return
            if answer == b"":
                await reader.read()  # says nothing
            writer.write(answer)
            await writer.drain()


def failure(status: int, *fields: bytes) -> bytes:
    return b"HTTP/1.1 %d No\r\n%bcontent-length: 0\r\n\r\n" % (status, b"".join(field + b"\r\n" for field in fields))


def get(method: bytes = b"GET", *fields: bytes) -> bytes:
    return method + b" / HTTP/1.1\r\nhost: a\r\n" + b"".join(field + b"\r\n" for field in fields) + CLOSE + b"\r\n"


def post(*fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in (*fields, b"content-length: 4"))
    return b"POST / HTTP/1.1\r\nhost: a\r\n" + lines + CLOSE + b"\r\nbody"


async def ask(
    one: Worker, app: App, request: bytes, policy: RetryPolicy, action: dict[str, Any] | None = None
) -> bytes:
    """The status line's code and the rest of the answer."""
    async with upstream(app) as port:
        assert await one.apply(snapshot(one.port, port, action={"retry": policy, **(action or {})})) is None
        return (await one.talk(request))[9:]


def on(*conditions: str, **more: Any) -> RetryPolicy:
    return RetryPolicy(
        frozenset(conditions), **{"num_retries": 2, "base_interval": 0.001, "max_interval": 0.001, **more}
    )


@pytest.mark.parametrize(
    ("policy", "first", "tries"),
    [
        (on("5xx"), failure(500), 2),
        (on("gateway-error"), failure(503), 2),
        (on("gateway-error"), failure(500), 1),
        (on("retriable-4xx"), failure(409), 2),
        (on("retriable-4xx"), failure(404), 1),
        (on("retriable-status-codes", retriable_status_codes=frozenset((404,))), failure(404), 2),
        (on("reset"), None, 2),
        (on("reset"), failure(503), 1),
        (on("connect-failure"), failure(503), 1),
        (on("connect-failure"), None, 1),
    ],
)
async def test_what_is_tried_again(one: Worker, policy: RetryPolicy, first: bytes | None, tries: int) -> None:
    app = App(first)
    answer = await ask(one, app, get(), policy)
    assert len(app.requests) == tries
    assert answer.startswith(b"200") == (tries == 2)


async def test_no_more_often_than_allowed(one: Worker) -> None:
    app = App(*[failure(503)] * 10)
    assert (await ask(one, app, get(), on("5xx"))).startswith(b"503 No")
    assert len(app.requests) == 3


async def test_the_body_goes_again(one: Worker) -> None:
    app = App(failure(503), None)
    assert (await ask(one, app, post(), on("5xx"))).startswith(b"200")
    assert [request[-4:] for request in app.requests] == [b"body"] * 3


@pytest.mark.parametrize("first", [failure(503), None, b""])
@pytest.mark.parametrize(
    ("request_", "tries"),
    [(get(), 2), (get(b"DELETE"), 2), (post(), 1), (post(b"idempotency-key: 7"), 2), (get(b"PATCH"), 1)],
)
async def test_only_where_it_is_safe(one: Worker, first: bytes | None, request_: bytes, tries: int) -> None:
    """What may have been acted on is never sent twice, unless that changes nothing."""
    app = App(first)
    policy = on("connect-failure", safe_on=frozenset(("5xx",)), per_try_timeout=0.1)
    answer = await ask(one, app, request_, policy)
    assert len(app.requests) == tries
    assert answer.startswith(b"200") == (tries == 2)


async def test_the_time_of_a_try(one: Worker) -> None:
    app = App(b"", b"")
    before = time.monotonic()
    assert (await ask(one, app, get(), on("gateway-error", per_try_timeout=0.1))).startswith(b"200")
    assert len(app.requests) == 3
    assert 0.2 <= time.monotonic() - before < 2
    assert app.at[1] - app.at[0] >= 0.1
    app = App(*[b""] * 9)
    answer = await ask(one, app, get(), on("gateway-error", per_try_timeout=0.05))
    assert answer.startswith(b"504")
    assert len(app.requests) == 3


async def test_a_try_may_take_its_time_once_it_answers(one: Worker) -> None:
    class Slow(App):
        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
            await asyncio.sleep(0.2)
            writer.write(b"k")
            await writer.drain()
            await reader.read()

    app = Slow()
    assert (await ask(one, app, get(), on("5xx", per_try_timeout=0.1))).endswith(b"ok")
    assert len(app.requests) == 1


async def test_retry_after(one: Worker) -> None:
    app = App(failure(503, b"retry-after: 1"))
    assert (await ask(one, app, get(), on("5xx", retry_after_max=2.0))).startswith(b"200")
    assert app.at[1] - app.at[0] >= 1
    app = App(failure(503, b"retry-after: 60"))
    assert (await ask(one, app, get(), on("5xx", retry_after_max=2.0))).startswith(b"200")
    assert app.at[1] - app.at[0] < 1


async def test_a_wait_that_the_time_left_does_not_allow_is_not_begun(one: Worker) -> None:
    app = App(failure(503, b"retry-after: 9"))
    before = time.monotonic()
    answer = await ask(one, app, get(), on("5xx", retry_after_max=10.0), {"timeout": 8.0})
    assert answer.startswith(b"503 No")  # the app's own answer, at once
    assert time.monotonic() - before < 4
    assert len(app.requests) == 1


async def test_a_client_that_leaves_between_two_tries_costs_no_other(one: Worker) -> None:
    app = App(failure(503, b"retry-after: 1"))
    async with upstream(app) as port:
        policy = on("5xx", retry_after_max=2.0)
        assert await one.apply(snapshot(one.port, port, action={"retry": policy})) is None
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(get())
        await asyncio.wait_for(app.asked.wait(), 5)
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()  # a reset, which says at once that it is gone
        await asyncio.sleep(1.2)
        await one.at_rest()
    assert len(app.requests) == 1
    assert await one.gauge("upstream_rq_active") == 0


async def test_the_budget(one: Worker) -> None:
    """100 requests that all fail: 30 that were saved up, a fifth of the requests, three a second; not 200 more."""
    app = App(*[failure(503)] * 1000)
    limits = {"circuit_breakers": CircuitBreakers(max_retries=1000)}
    async with upstream(app) as port:
        before = time.monotonic()
        assert await one.apply(snapshot(one.port, port, action={"retry": on("5xx")}, cluster=limits)) is None
        for _ in range(5):
            await one.talk((get().replace(CLOSE, b"") * 19) + get())
        seconds = time.monotonic() - before
    assert 100 + 20 <= len(app.requests) <= 100 + 30 + 20 + 3 * seconds + 1
    assert await one.count("response_flags_total", flag="UO") > 0
