"""The worker's HTTP/1.1, through a real worker process and raw sockets."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.config.listener import AccessLog
from proxy.config.route import DirectResponse, RetryPolicy, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, body included, as raw bytes."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    if length is not None:
        return head + await reader.readexactly(int(length[1]))
    if b"transfer-encoding: chunked" in head:
        body = b""
        while not body.endswith(b"0\r\n\r\n") and not re.search(rb"0\r\n(.+\r\n)+\r\n$", body):
            body += await reader.readline()
        return head + body
    return head


class Recorder:
    """An upstream that answers every request with `answer` and keeps what it got."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.requests.append(await read_request(reader))
            writer.write(self.answer)
            await writer.drain()


async def test_requests_share_one_upstream_connection(one: Worker) -> None:
    app = Recorder()
    async with upstream(app) as port:
        assert await one.apply(snapshot(one.port, port)) is None
        answer = await one.talk(GET + GET + LAST)
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        assert answer.count(b"connection: close") == 1
        assert [request.split()[1] for request in app.requests] == [b"/", b"/", b"/last"]
        assert app.connections == 1
        assert await one.count("upstream_rq_total", cluster="app", response_code_class="2xx") == 3


async def test_pipelined_answers_keep_their_order(one: Worker) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await read_request(reader)).split()[1]
            if path == b"/0":
                await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number for number in range(300))
        answer = await one.talk(requests + LAST)
        assert re.findall(rb"\r\n\r\n(/[a-z0-9]+)", answer) == [b"/%d" % number for number in range(300)] + [b"/last"]


async def test_hop_by_hop_fields_stay_on_their_hop(one: Worker) -> None:
    app = Recorder(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nKeep-Alive: timeout=5\r\nConnection: x-private, keep-alive\r\n"
        b"X-Private: 1\r\nX-Public: 2\r\n\r\nok"
    )
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        answer = await one.talk(
            b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 3\r\nTE: trailers\r\n"
            b"Upgrade: h2c\r\nProxy-Connection: keep-alive\r\nX-Other:  two words \r\n\r\n"
        )
    sent = app.requests[0].lower()
    assert b"x-mine" not in sent
    assert b"keep-alive" not in sent
    assert b"upgrade" not in sent
    assert b"proxy-connection" not in sent
    assert b"x-other: two words\r\n" in sent
    assert b"te: trailers\r\n" in sent
    assert b"x-forwarded-proto: http\r\n" in sent
    assert b"x-private" not in answer.lower()
    assert b"keep-alive" not in answer
    assert b"x-public: 2\r\n" in answer
    assert b"\r\ndate: " in answer


@pytest.mark.parametrize(
    ("request_bytes", "sent"),
    [
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", b"hello"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 7\r\n\r\n",
            b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n",
        ),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", b"content-length: 0"),
    ],
)
async def test_request_bodies_arrive_whole(one: Worker, request_bytes: bytes, sent: bytes) -> None:
    app = Recorder()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        assert (await one.talk(request_bytes)).startswith(b"HTTP/1.1 200")
        assert sent in app.requests[0]


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"content-length: 1000\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"content-length: 9\r\n"),
        (
            b"GET",
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n",
        ),
        (
            b"GET",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
            b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        ),
        (b"GET", b"HTTP/1.1 299 Fine By Me\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 299 Fine By Me\r\n"),
    ],
)
async def test_responses_keep_their_framing(one: Worker, method: bytes, answer: bytes, expected: bytes) -> None:
    app = Recorder(answer)
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        request = method + b" / HTTP/1.1\r\nhost: a\r\n\r\n"
        got = await one.talk(request + request.replace(b"host: a", b"host: a\r\nconnection: close"))
        assert len(re.findall(rb"HTTP/1.1 [2-9]", got)) == 2
        assert expected in got
        assert app.connections == 1  # the first answer left the connection usable


async def test_a_body_that_ends_with_the_connection_becomes_chunked(one: Worker) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b" you")

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, http={"accept_http_10": True}))
        got = await one.talk(LAST)
        assert b"transfer-encoding: chunked" in got
        assert got.endswith(b"0\r\n\r\n")
        assert b"hello" in got
        old = await one.talk(b"GET / HTTP/1.0\r\n\r\n")
        assert b"chunked" not in old
        assert old.endswith(b"\r\n\r\nhello you")


async def test_an_edge_says_who_its_client_is(one: Worker) -> None:
    app = Recorder()
    claims = b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nconnection: close\r\n\r\n"
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, free_port(), port, http={"use_remote_address": True}))
        await one.talk(claims)
        await one.talk(claims)  # one of the two was retried on the other endpoint: said once all the same
        await one.apply(snapshot(one.port, port))
        await one.talk(claims)
    edge, again, inside = app.requests
    for request in (edge, again):
        assert request.count(b"x-forwarded-for") == 1
        assert b"x-forwarded-for: 1.2.3.4,127.0.0.1\r\n" in request
        assert b"x-forwarded-proto: http\r\n" in request
    assert b"x-forwarded-for: 1.2.3.4\r\n" in inside
    assert b"x-forwarded-proto: https\r\n" in inside


async def test_expect_continue_is_answered_here(one: Worker) -> None:
    app = Recorder()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert b"expect" not in app.requests[0]


async def test_the_proxy_form_of_a_request(one: Worker) -> None:
    app = Recorder()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        await one.talk(b"GET http://cart/items?x=1 HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
        assert app.requests[0].startswith(b"GET /items?x=1 HTTP/1.1\r\nhost: cart\r\n")


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nhost: a\n\n", 400),
        (b"GET / HTTP/3.1\r\nhost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\ncontent-length: 1\r\n\r\nx", 417),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 90_000, 431),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", 404),
    ],
)
async def test_ambiguity_is_refused_and_the_connection_closed(one: Worker, bad: bytes, status: int) -> None:
    app = Recorder()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        answer = await one.talk(GET + bad)
        heads = re.findall(rb"HTTP/1\.1 (\d+)", answer)
        assert heads == [b"200", str(status).encode()]
        assert b"pillion: " in answer
        assert all(b"smuggled" not in request for request in app.requests)
        assert len([request for request in app.requests if request.startswith(b"GET / ")]) == 1


async def test_a_dead_endpoint_costs_a_try_and_no_request(one: Worker) -> None:
    app = Recorder()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, free_port()))
        answer = await one.talk(GET * 10 + LAST)
        assert answer.count(b"HTTP/1.1 200 OK") == 11
        assert await one.count("upstream_rq_retry_total", cluster="app") > 0


async def test_the_retries_of_a_cluster_are_limited(one: Worker) -> None:
    await one.apply(snapshot(one.port, free_port(), cluster={"circuit_breakers": CircuitBreakers(max_retries=0)}))
    assert b"could not connect" in await one.talk(LAST)
    assert await one.count("upstream_rq_retry_total", cluster="app") == 0
    assert await one.count("response_flags_total", flag="UO") == 1
    await one.apply(snapshot(one.port, free_port(), cluster={"circuit_breakers": CircuitBreakers(max_retries=1)}))
    await one.talk(GET + LAST)  # two tries more for each, one after the other: the room is given back
    assert await one.count("upstream_rq_retry_total", cluster="app") == 4
    assert await one.count("response_flags_total", flag="URX") == 2


async def test_a_restarted_trace_has_no_state_of_the_old_one(one: Worker) -> None:
    app = Recorder()
    state = b"tracestate: a=1\r\nconnection: close\r\n\r\n"
    parent = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, http={"tracing": True}))
        await one.talk(b"GET / HTTP/1.1\r\nhost: a\r\n" + parent + state)
        await one.talk(b"GET / HTTP/1.1\r\nhost: a\r\ntraceparent: rubbish\r\n" + state)
    assert [b"tracestate: a=1" in request for request in app.requests] == [True, False]


async def test_nothing_to_connect_to(one: Worker) -> None:
    await one.apply(snapshot(one.port, free_port(), listener={"traffic_direction": "INBOUND"}))
    answer = await one.talk(LAST)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"x-pillion-unsent: UF\r\n" in answer
    assert await one.count("response_flags_total", flag="UF") == 1
    await one.apply(snapshot(one.port))
    answer = await one.talk(LAST)
    assert b"no healthy endpoint" in answer
    assert b"x-pillion-unsent" not in answer  # only between sidecars: this listener is not inbound


async def test_a_kept_alive_connection_that_died_is_replaced_for_what_may_be_repeated(one: Worker) -> None:
    seen: list[bytes] = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # takes the second request of the connection, and dies

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        assert (await one.talk(GET + LAST)).count(b"200 OK") == 2
        post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"
        answer = await one.talk(post + post.replace(b"host: a", b"host: a\r\nconnection: close"))
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"503", b"200"]
        assert len([request for request in seen if request.startswith(b"POST")]) == 1


@pytest.mark.parametrize(
    ("retry_on", "connections"), [(frozenset(("reset",)), 3), (frozenset(("connect-failure",)), 1)]
)
async def test_reset_before_the_answer(one: Worker, retry_on: frozenset[str], connections: int) -> None:
    seen = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, action={"retry": RetryPolicy(retry_on, 2)}))
        post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
        assert (await one.talk(post)).startswith(b"HTTP/1.1 503 ")
        assert len(seen) == connections
        assert all(request.endswith(b"hello") for request in seen)


async def test_an_answer_cut_short_breaks_the_connection(one: Worker) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(GET)
        got = b""
        try:
            while data := await reader.read(1000):
                got += data
        except ConnectionResetError:
            pass
        assert got.endswith(b"part") or got == b""
        writer.close()
        assert await one.count("response_flags_total", flag="UC") == 1


async def test_an_answer_that_is_not_http(one: Worker) -> None:
    app = Recorder(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok")
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        assert (await one.talk(LAST)).startswith(b"HTTP/1.1 502 ")


async def test_the_route_timeout(one: Worker) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, action={"timeout": 0.1}))
        started = asyncio.get_running_loop().time()
        answer = await one.talk(GET + LAST)
        assert answer.count(b"HTTP/1.1 504 ") == 2
        assert 0.2 <= asyncio.get_running_loop().time() - started < 2


async def test_the_header_and_idle_timeouts(one: Worker) -> None:
    await one.apply(snapshot(one.port, http={"request_headers_timeout": 0.1, "idle_timeout": 0.2}))
    assert (await one.talk(b"GET / HTTP/1.1\r\nhos")).startswith(b"HTTP/1.1 408 ")
    assert await one.talk(b"") == b""


async def test_limits_overflow_at_once(one: Worker) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            asked.set()
            await release.wait()
            writer.write(OK)

    async with upstream(app) as port:
        limits = CircuitBreakers(max_connections=1, max_pending_requests=1)
        await one.apply(snapshot(one.port, port, cluster={"circuit_breakers": limits}))
        first = asyncio.create_task(one.talk(LAST))
        await asked.wait()
        talks = [asyncio.create_task(one.talk(LAST)) for _ in range(2)]
        await asyncio.wait(talks, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        answers = sorted([await first, *await asyncio.gather(*talks)])
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 503"]
        assert b"max_pending_requests" in answers[2]
        assert await one.count("response_flags_total", flag="UO") == 1


async def test_a_slow_reader_slows_the_app_and_not_our_memory(one: Worker) -> None:
    """32 MiB both ways; whoever does not read makes the other side wait."""
    size = 32 * 1024 * 1024
    sent = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        block = b"x" * 65536
        for _ in range(size // len(block)):
            writer.write(block)
            await writer.drain()
            sent += len(block)

    def resident() -> int:
        status = Path(f"/proc/{one.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        before = resident()
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=65536)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        stalled = -1
        while stalled != sent:  # until nothing moves any more
            stalled = sent
            await asyncio.sleep(0.3)
        assert stalled < size
        assert resident() - before < 16 * 1024 * 1024
        got = 0
        while got < size:
            data = await reader.read(1 << 20)
            assert data
            got += len(data)
        writer.close()
        assert got == size


async def test_a_direct_response_and_no_route(one: Worker) -> None:
    routes = RouteConfiguration(
        "r",
        (
            VirtualHost(
                "v", ("known",), (Route(RouteMatch("path", "/hi"), DirectResponse(418, b"short and stout"), "tea"),)
            ),
        ),
    )
    config = snapshot(one.port, http={"route_config": routes})
    await one.apply(Snapshot(listeners=config.listeners))
    answer = await one.talk(
        b"GET /hi?q HTTP/1.1\r\nhost: known\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"418", b"404"]
    assert b"short and stout" in answer


async def test_the_access_log_has_one_record_a_request(one: Worker, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(
        str(path),
        json_format=(
            ("status", "%RESPONSE_CODE%"),
            ("path", "%REQ(:PATH)%"),
            ("trace", "%TRACE_ID%"),
            ("parent", "%REQ(TRACEPARENT)%"),
            ("flags", "%RESPONSE_FLAGS%"),
            ("host", "%UPSTREAM_HOST%"),
            ("got", "%BYTES_RECEIVED%"),
            ("sent", "%BYTES_SENT%"),
            ("route", "%ROUTE_NAME%"),
        ),
    )
    app = Recorder()
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port, http={"access_logs": (log,), "tracing": True, "accept_http_10": True}))
        await one.talk(
            f"POST /a HTTP/1.1\r\nhost: a\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\ncontent-length: 2\r\n\r\nhi".encode()
            + b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"
            + b"rubbish"
        )
        await one.send(channel.Drain(0))
        await one.process.wait()
        assert re.search(rf"traceparent: 00-{trace}-(?!b7ad6b7169203331)[0-9a-f]{{16}}-01".encode(), app.requests[0])
        assert re.search(rb"x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-", app.requests[0])
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["status"] for record in records] == [200, 200]
    first, second = records
    assert first["trace"] == trace
    assert first["host"] == f"127.0.0.1:{port}"
    assert (first["got"], first["sent"], first["route"], first["flags"]) == (2, 2, "main", "-")
    assert second["trace"] not in ("", trace)


async def test_an_update_takes_effect_and_a_bad_one_changes_nothing(one: Worker) -> None:
    old, new = Recorder(), Recorder(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew")
    async with upstream(old) as first, upstream(new) as second:
        await one.apply(snapshot(one.port, first))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(GET)
        await reader.readuntil(b"ok")
        bad = snapshot(one.port, second, http={"access_logs": (AccessLog("/nowhere/at/all.log", text_format="x\n"),)})
        error = await one.apply(bad)
        assert error is not None
        assert "/nowhere/at/all.log" in error
        writer.write(GET)
        await reader.readuntil(b"ok")
        assert await one.apply(snapshot(one.port, second)) is None
        writer.write(GET)  # the same client connection sees the new endpoints
        await reader.readuntil(b"new")
        writer.close()


async def test_drain_finishes_what_is_in_flight(one: Worker) -> None:
    asked = asyncio.Event()
    release = asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await release.wait()
        writer.write(OK)
        await reader.read()

    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        answer = asyncio.create_task(one.talk(GET))
        await asked.wait()
        await one.send(channel.Drain(5))
        release.set()
        text = await answer
        assert text.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in text
        assert await asyncio.wait_for(one.process.wait(), 5) == 0


async def test_a_worker_without_its_agent_ends(one: Worker) -> None:
    one.sock.close()
    assert await asyncio.wait_for(one.process.wait(), 2) == 0


async def test_signals_are_left_to_the_agent(one: Worker) -> None:
    await one.apply(snapshot(one.port))
    one.process.send_signal(signal.SIGINT)
    one.process.send_signal(signal.SIGTERM)
    assert (await one.talk(LAST)).startswith(b"HTTP/1.1 503 ")
