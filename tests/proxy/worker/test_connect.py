"""CONNECT through a real worker: ended here (connect_config), or passed on to a proxy; and tunnels over mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.config.cluster import CircuitBreakers
from proxy.config.model import DownstreamTls, SanMatcher, StringMatcher, TrustBundle, UpstreamTls, Validation
from proxy.config.route import DirectResponse, RetryPolicy, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.config.snapshot import Snapshot
from tests.support.certificates import Authority
from tests.support.tcp import give_key, records, reset
from tests.support.tunnels import CONNECT, UPGRADE, App, connecting, tunnel, upgrading
from tests.support.wait import until
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"
CA = Authority()
WEB, CART = "spiffe://test/service/web", "spiffe://test/service/cart"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


async def test_it_ends_here(one: Worker, tmp_path: Path) -> None:
    app, log = App(), tmp_path / "log"
    async with upstream(app.echo) as port:
        assert await one.apply(connecting(one.port, port, ends=True, log=log)) is None
        async with tunnel(one.port, CONNECT + b"early") as client:
            assert client.head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-length" not in client.head
            assert b"transfer-encoding" not in client.head
            assert await client.reader.readexactly(5) == b"early"
            assert await client.exchange(b"hello") == b"hello"
            for gauge in ("upstream_rq_active", "upstream_cx_active", "downstream_cx_upgrades_active"):
                assert await one.gauge(gauge) == 1, gauge
            client.writer.write_eof()
            assert await client.rest() == b"bye"
        (record,) = await records(log, 1)
        assert (record["status"], record["method"], record["flags"]) == (200, "CONNECT", "-")
        assert (record["received"], record["sent"], record["attempts"]) == (10, 13, 1)
        assert record["host"] == f"127.0.0.1:{port}"
        for gauge in ("upstream_rq_active", "upstream_cx_active", "downstream_cx_upgrades_active"):
            assert await one.gauge(gauge) == 0, gauge
        assert await one.count("upstream_cx_total", cluster="app") == 1
        assert await one.count("upstream_rq_total", cluster="app", response_code_class="2xx") == 1
    assert app.ends == ["end"]
    assert app.received == b"earlyhello"


async def test_a_connection_that_spoke_http_carries_no_tunnel(one: Worker) -> None:
    app = App(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    async with upstream(app) as port:
        await one.apply(connecting(one.port, port, ends=True))
        assert b" 200 " in await one.talk(LAST)
        async with tunnel(one.port, CONNECT) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await client.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        assert await one.count("upstream_cx_total", cluster="app") == 2
        await one.at_rest()
        assert b" 200 " in await one.talk(LAST)
        assert await one.count("upstream_cx_total", cluster="app") == 2


async def test_an_endpoint_may_speak_first_and_leave_at_once(one: Worker) -> None:
    async def daytime(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"noon")

    async with upstream(daytime) as port:
        await one.apply(connecting(one.port, port, ends=True))
        for _ in range(20):
            async with tunnel(one.port, CONNECT) as client:
                assert b" 200 " in client.head
                assert await client.rest() == b"noon"
        await one.at_rest()
        assert await one.gauge("upstream_cx_active") == 0


async def test_it_goes_on_to_a_proxy(one: Worker, tmp_path: Path) -> None:
    app, log = App(b"HTTP/1.1 200 Fine\r\ncontent-length: 7\r\nx-proxy: 1\r\n\r\n"), tmp_path / "log"
    async with upstream(app) as port:
        await one.apply(connecting(one.port, port, ends=False, log=log, action={"host_rewrite": "other:1"}))
        async with tunnel(one.port, CONNECT + b"early") as client:
            assert client.head.startswith(b"HTTP/1.1 200 Fine\r\nx-proxy: 1\r\n")
            assert b"content-length" not in client.head  # RFC 9110 §9.3.6
            assert await client.reader.readexactly(5) == b"early"
            assert await client.exchange(b"hello") == b"hello"
            client.writer.write_eof()
            assert await client.rest() == b"bye"
        (record,) = await records(log, 1)
        assert (record["status"], record["received"], record["sent"]) == (200, 10, 13)
        assert await one.gauge("upstream_cx_active") == 0
    assert app.heads[0].startswith(b"CONNECT other:1 HTTP/1.1\r\nhost: other:1\r\n")


async def test_a_proxy_that_refuses_is_heard_and_the_connection_ends(one: Worker) -> None:
    async with upstream(App(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")) as port:
        await one.apply(connecting(one.port, port, ends=False))
        # What stands behind a CONNECT is no request of this connection, whatever it looks like.
        answer = await one.talk(CONNECT + LAST)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert answer.endswith(b"\r\n\r\nno")
        assert b"connection: close\r\n" in answer
        await one.at_rest()
        assert await one.gauge("upstream_cx_active") == 1  # the proxy's side is an ordinary answer


@pytest.mark.parametrize(
    ("what", "status"),
    [("no matcher", 404), ("other host", 404), ("not enabled", 404), ("enabled by the listener", 200), ("direct", 403)],
)
async def test_only_where_a_route_allows_it(one: Worker, what: str, status: int) -> None:
    async with upstream(App().echo) as port:
        config = connecting(
            one.port, port, ends=True, domains=("other:5432",) if what == "other host" else ("db:5432",)
        )
        if what == "no matcher":
            config = snapshot(
                one.port, port, http={"upgrades": frozenset(("connect",))}, action={"upgrades": (("connect", True),)}
            )
        elif what == "not enabled":
            config = connecting(one.port, port, ends=True, action={"upgrades": (("connect", False),)})
        elif what == "enabled by the listener":
            http = {"upgrades": frozenset(("connect",))}
            config = connecting(one.port, port, ends=True, action={"upgrades": ()}, http=http)
        elif what == "direct":
            route = Route(RouteMatch("connect_matcher", ""), DirectResponse(403, b"no"))
            routes = RouteConfiguration("routes", (VirtualHost("all", ("*",), (route,)),))
            config = snapshot(one.port, port, http={"route_config": routes})
        assert await one.apply(config) is None
        async with tunnel(one.port, CONNECT) as client:
            assert client.head.startswith(b"HTTP/1.1 %d " % status)
            assert (b"connection: close" in client.head) is (status != 200)
        assert await one.count("response_flags_total", flag="NR") == (status == 404)


async def test_the_authority_does_not_choose_the_endpoint(one: Worker) -> None:
    app, bystander = App(), App()
    async with upstream(app.echo) as port, upstream(bystander.echo) as other:
        await one.apply(connecting(one.port, port, ends=True))
        target = b"127.0.0.1:%d" % other
        async with tunnel(one.port, b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (target, target)) as client:
            assert await client.exchange(b"hello") == b"hello"
    assert (app.received, bystander.received) == (b"hello", b"")


async def test_another_endpoint_is_tried_and_then_it_is_a_503(one: Worker, tmp_path: Path) -> None:
    log = tmp_path / "log"
    retry = RetryPolicy(frozenset(("connect-failure",)), 1)
    async with upstream(App().echo) as port:
        await one.apply(connecting(one.port, free_port(), port, ends=True, action={"retry": retry}, log=log))
        for _ in range(2):
            async with tunnel(one.port, CONNECT) as client:
                assert await client.exchange(b"hello") == b"hello"
        assert 2 in [record["attempts"] for record in await records(log, 2)]
        await one.apply(connecting(one.port, free_port(), ends=True, log=log))
        answer = await one.talk(CONNECT)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close\r\n" in answer
        record = (await records(log, 3))[-1]
        assert (record["status"], record["flags"]) == (503, "UF")
        await one.at_rest()
        assert await one.gauge("upstream_cx_active") == 0
        assert await one.count("upstream_cx_connect_fail_total", cluster="app") >= 2


async def test_max_connections(one: Worker) -> None:
    limits: dict[str, Any] = {"circuit_breakers": CircuitBreakers(max_connections=1)}
    async with upstream(App().echo) as port:
        await one.apply(connecting(one.port, port, ends=True, cluster=limits))
        async with tunnel(one.port, CONNECT):
            assert (await one.talk(CONNECT)).startswith(b"HTTP/1.1 503 ")
            assert await one.count("response_flags_total", flag="UO") == 1
        await one.at_rest()
        async with tunnel(one.port, CONNECT) as client:
            assert await client.exchange(b"x") == b"x"


async def test_a_client_that_leaves_while_the_connection_opens_leaves_nothing(one: Worker) -> None:
    # An address that is not routed here, where connecting takes until its timeout.
    config = connecting(one.port, 1, ends=True, cluster={"connect_timeout": 0.3})
    (endpoint,) = config.assignments["app"].endpoints
    away = replace(endpoint, address=replace(endpoint.address, host="198.51.100.1"))
    await one.apply(replace(config, assignments={"app": replace(config.assignments["app"], endpoints=(away,))}))
    _, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(CONNECT)
    while not await one.gauge("upstream_rq_active"):  # noqa: ASYNC110  # another process's gauge
        await asyncio.sleep(0.01)
    reset(writer)
    await one.at_rest()
    async with asyncio.timeout(5):
        while await one.gauge("upstream_cx_active"):  # noqa: ASYNC110  # another process's gauge
            await asyncio.sleep(0.02)


# ---- mutual TLS


async def secured(one: Worker, config: Snapshot, name: str, peer: str, *, server: bool = False) -> Snapshot:
    """`config` with mutual TLS at its listener or its cluster."""
    validation = Validation("ca", (SanMatcher("URI", StringMatcher("exact", peer)),))
    listener, cluster = config.listeners["main"], config.clusters["app"]
    if server:
        tls = DownstreamTls(certificate="own", validation=validation, require_client_certificate=True)
        listener = replace(listener, filter_chain=replace(listener.filter_chain, tls=tls))
    else:
        cluster = replace(cluster, tls=UpstreamTls("own", validation, "cart"))
    return replace(
        config,
        listeners={"main": listener},
        clusters={"app": cluster},
        certificates={"own": await give_key(one, "own", CA.issue(name))},
        bundles={"ca": TrustBundle("ca", CA.pem)},
    )


@asynccontextmanager
async def pair(app: App, request: bytes, log: Path) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers with mutual TLS between them; CONNECT goes on at the first and ends at the second."""
    handler = app if request is UPGRADE else app.echo
    async with upstream(handler) as port, worker() as front, worker() as back:
        make: Any = upgrading if request is UPGRADE else connecting
        inner = make(back.port, port, **({} if request is UPGRADE else {"ends": True}))
        outer = make(front.port, back.port, log=log, **({} if request is UPGRADE else {"ends": False}))
        assert await back.apply(await secured(back, inner, CART, WEB, server=True)) is None
        assert await front.apply(await secured(front, outer, WEB, CART)) is None
        yield front, back


@pytest.mark.parametrize("request_", [UPGRADE, CONNECT])
async def test_through_a_pair(request_: bytes, tmp_path: Path) -> None:
    app, log = App(), tmp_path / "log"
    async with pair(app, request_, log) as (front, back):
        async with tunnel(front.port, request_ + b"early") as client:
            assert client.head.split()[1] == (b"101" if request_ is UPGRADE else b"200")
            assert await client.reader.readexactly(5) == b"early"
            assert await client.exchange(b"x" * 1_000_000) == b"x" * 1_000_000
            assert await back.gauge("downstream_cx_upgrades_active") == 1
            # TLS as it is here knows no half-close: the client's end is the tunnel's, delivered in order.
            client.writer.write(b"last words")
            client.writer.write_eof()
            assert b"RESET" not in await client.rest()
        await until(lambda: app.received.endswith(b"last words"), 5)
        await until(lambda: bool(app.ends), 5)
        for one in (front, back):
            await one.at_rest()
            assert await one.gauge("upstream_cx_active") == 0
            assert await one.gauge("downstream_cx_active") == 0
        assert len(await records(log, 1)) == 1
    assert app.ends == ["end"]


async def test_the_apps_end_and_a_clients_reset_pass_a_pair(tmp_path: Path) -> None:
    class Leaving(App):
        async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"x" * 30_000_000)
            try:
                if await reader.read(1) == b"q":
                    writer.write(b"last")
                else:
                    self.ends.append("end")
            except ConnectionError:
                self.ends.append("reset")

    app = Leaving()
    async with pair(app, UPGRADE, tmp_path / "log") as (front, back):
        async with tunnel(front.port) as client:
            client.writer.write(b"q")
            await asyncio.sleep(2.5)  # longer than closing connections linger
            assert await client.rest() == b"x" * 30_000_000 + b"last"
        async with tunnel(front.port) as client:
            reset(client.writer)
            await until(lambda: app.ends == ["reset"], 5)
        for one in (front, back):
            await one.at_rest()
            assert await one.gauge("upstream_cx_active") == 0
