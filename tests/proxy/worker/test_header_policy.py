"""Header and path policies of listeners and routes, through a real worker: what the upstream and the client see."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config.cluster import Endpoint, LoadAssignment
from proxy.config.listener import AccessLog
from proxy.config.model import Address
from proxy.config.route import (
    DirectResponse,
    ForwardAction,
    HeaderMutations,
    HeaderValueOption,
    RetryPolicy,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

Answer = tuple[bytes, bytes]
OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


class App:
    """An upstream that keeps the head of each request and answers with `extra` header lines."""

    def __init__(self, extra: bytes = b"") -> None:
        self.extra = extra
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n" + self.extra + b"content-length: 2\r\n\r\nok")
            await writer.drain()

    @property
    def target(self) -> bytes:
        return self.heads[-1].split(b" ")[1]


def get(target: bytes = b"/", headers: bytes = b"", host: bytes = b"a") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n" + headers + b"\r\n"


def fields(message: bytes, name: bytes) -> list[bytes]:
    """The values of a header in the head of a message."""
    head = message.partition(b"\r\n\r\n")[0]
    return re.findall(rb"\r\n" + name + rb": ([^\r]*)", head)


def status(answer: bytes) -> int:
    return int(answer[9:12])


async def through(one: Worker, app: App, request: bytes, **http: Any) -> bytes:
    """The answer to one request through a listener with these fields."""
    async with upstream(app) as port:
        assert await one.apply(snapshot(one.port, port, http=http)) is None
        return await one.talk(request)


# ---- paths


async def test_route_log_and_upstream_see_the_normal_path(one: Worker, tmp_path: Path) -> None:
    log = tmp_path / "log"
    app = App()
    async with upstream(app) as port:
        action = ForwardAction((WeightedCluster("app"),))
        routes = (
            Route(RouteMatch("prefix", "/secret"), DirectResponse(403), "secret"),
            Route(RouteMatch("prefix", "/"), action, "rest"),
        )
        http = {
            "route_config": RouteConfiguration("r", (VirtualHost("all", ("*",), routes),)),
            "normalize_path": True,
            "merge_slashes": True,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
            "access_logs": (AccessLog(str(log), json_format=(("path", "%REQ(:PATH)%"), ("route", "%ROUTE_NAME%"))),),
        }
        await one.apply(snapshot(one.port, port, http=http))
        for target in (b"/a/../secret", b"/%73ecret", b"//secret", b"/a%2f..%2Fsecret", b"/.;/secret", b"/\\secret"):
            answer = await one.talk(get(target))
            assert status(answer) == 403, target
        assert status(await one.talk(get(b"/a/./b?x=/../y"))) == 200
        assert app.target == b"/a/b?x=/../y"
        await one.send(channel.Drain(0))
        await one.process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["path"] for line in lines[:-1]} == {"/secret"}
    assert lines[-1] == {"path": "/a/b?x=/../y", "route": "rest"}


async def test_a_path_is_left_alone_by_default(one: Worker) -> None:
    app = App()
    await through(one, app, get(b"/a/../%2e//b%2fc"))
    assert app.target == b"/a/../%2e//b%2fc"


async def test_a_refused_path(one: Worker) -> None:
    app = App()
    again = get(b"/again")
    answer = await through(one, app, get(b"/a%5Cb") + again, path_with_escaped_slashes_action="REJECT_REQUEST")
    assert status(answer) == 400
    assert b"an escaped slash" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert app.heads == []


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (b"/a%2Fb?c=%2f", b"/a/b?c=%2f"),
        (b"/%2Fevil.example/x", b"http://a//evil.example/x"),  # or the client would go to another host
    ],
)
async def test_a_redirected_path(one: Worker, target: bytes, location: bytes) -> None:
    app = App()
    request = get(target)
    answer = await through(one, app, request, path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT")
    assert status(answer) == 307
    assert fields(answer, b"location") == [location]
    assert app.heads == []


# ---- Host


async def test_the_port_of_host_is_stripped_before_routing(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        action = ForwardAction((WeightedCluster("app"),))
        host = VirtualHost("cart", ("cart",), (Route(RouteMatch("prefix", "/"), action),))
        routes = RouteConfiguration("r", (host,))
        for fields_, given, expected in (
            ({}, b"cart:80", 404),
            ({"strip_any_host_port": True}, b"cart:80", 200),
            ({"strip_matching_host_port": True}, b"cart:80", 404),
            ({"strip_matching_host_port": True}, b"cart:%d" % one.port, 200),
        ):
            await one.apply(snapshot(one.port, port, http={"route_config": routes, **fields_}))
            assert status(await one.talk(get(host=given))) == expected
    assert [fields(head, b"host") for head in app.heads] == [[b"cart"], [b"cart"]]


async def test_auto_host_rewrite(one: Worker) -> None:
    app = App()
    async with upstream(app) as port:
        base = snapshot(one.port, port, action={"auto_host_rewrite": True})
        for hostname, expected in (("db.example", b"db.example"), ("", b"a")):
            endpoint = Endpoint(Address("127.0.0.1", port), hostname=hostname)
            named = Snapshot(base.listeners, base.routes, base.clusters, {"app": LoadAssignment("app", (endpoint,))})
            assert await one.apply(named) is None
            await one.talk(get())
            assert fields(app.heads[-1], b"host") == [expected]


# ---- HTTP/1.0 and absolute targets


async def test_http_10_must_be_asked_for(one: Worker) -> None:
    app = App()
    request = b"GET / HTTP/1.0\r\n\r\n"
    answer = await through(one, app, request)
    assert status(answer) == 426
    assert b"accept_http_10" in answer
    assert app.heads == []
    assert status(await through(one, app, request, accept_http_10=True)) == 200
    assert status(await through(one, app, request, accept_http_10=True, default_host_for_http_10="old")) == 200
    assert [fields(head, b"host") for head in app.heads] == [[b""], [b"old"]]


async def test_absolute_targets_can_be_off(one: Worker) -> None:
    app = App()
    request = get(b"http://b/c")
    assert status(await through(one, app, request, allow_absolute_url=False)) == 404
    assert status(await through(one, app, request)) == 200
    assert app.target == b"/c"


# ---- who the client is


@pytest.mark.parametrize(
    ("http", "forwarded", "proto", "kept", "logged"),
    [
        ({}, b"1.2.3.4, 5.6.7.8", b"https", True, "5.6.7.8:0"),
        ({"xff_num_trusted_hops": 1}, b"1.2.3.4, 5.6.7.8", b"https", True, "1.2.3.4:0"),
        ({"use_remote_address": True}, b"1.2.3.4, 5.6.7.8,127.0.0.1", b"http", False, None),
        (
            {"use_remote_address": True, "xff_num_trusted_hops": 1},
            b"1.2.3.4, 5.6.7.8,127.0.0.1",
            b"https",
            False,
            "5.6.7.8:0",
        ),
        ({"use_remote_address": True, "skip_xff_append": True}, b"1.2.3.4, 5.6.7.8", b"http", False, None),
        (
            {"use_remote_address": True, "preserve_external_request_id": True},
            b"1.2.3.4, 5.6.7.8,127.0.0.1",
            b"http",
            True,
            None,
        ),
    ],
)
async def test_who_is_believed_about_the_client(
    one: Worker, tmp_path: Path, http: dict[str, Any], forwarded: bytes, proto: bytes, kept: bool, logged: str | None
) -> None:
    log = tmp_path / "log"
    form = (("who", "%DOWNSTREAM_REMOTE_ADDRESS%"), ("direct", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"))
    app = App()
    claims = b"x-forwarded-for: 1.2.3.4, 5.6.7.8\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\n"
    await through(one, app, get(headers=claims), access_logs=(AccessLog(str(log), json_format=form),), **http)
    await one.send(channel.Drain(0))
    await one.process.wait()
    (head,) = app.heads
    assert fields(head, b"x-forwarded-for") == [forwarded]
    assert fields(head, b"x-forwarded-proto") == [proto]
    assert (fields(head, b"x-request-id") == [b"mine"]) is kept
    line = json.loads(log.read_text())
    assert line["direct"].startswith("127.0.0.1:")
    assert line["who"] == (logged or line["direct"])


async def test_the_request_id_is_told_to_the_client(one: Worker) -> None:
    app = App(b"x-request-id: theirs\r\n")
    answer = await through(one, app, get(headers=b"x-request-id: mine\r\n"), always_set_request_id_in_response=True)
    assert fields(answer, b"x-request-id") == [b"mine"]
    answer = await through(one, app, get(), always_set_request_id_in_response=True)
    assert fields(answer, b"x-request-id") == fields(app.heads[-1], b"x-request-id")
    answer = await through(one, App(), get())
    assert fields(answer, b"x-request-id") == []


# ---- Via, Server, underscores


async def test_via_on_requests_and_responses(one: Worker) -> None:
    app = App(b"via: 1.1 app\r\n")
    answer = await through(one, app, get(headers=b"via: 1.0 before\r\n"), via="1.1 edge")
    assert fields(app.heads[0], b"via") == [b"1.0 before", b"1.1 edge"]
    assert fields(answer, b"via") == [b"1.1 app", b"1.1 edge"]
    await one.apply(snapshot(one.port, http={"via": "1.1 edge"}))
    assert fields(await one.talk(get()), b"via") == [b"1.1 edge"]  # our own replies, too


@pytest.mark.parametrize(
    ("transformation", "theirs", "none", "own"),
    [
        ("OVERWRITE", [b"sn"], [b"sn"], [b"sn"]),
        ("APPEND_IF_ABSENT", [b"app"], [b"sn"], [b"sn"]),
        ("PASS_THROUGH", [b"app"], [], []),
    ],
)
async def test_server(one: Worker, transformation: str, theirs: Any, none: Any, own: Any) -> None:
    http = {"server_name": "sn", "server_header_transformation": transformation}
    assert fields(await through(one, App(b"server: app\r\n"), get(), **http), b"server") == theirs
    assert fields(await through(one, App(), get(), **http), b"server") == none
    await one.apply(snapshot(one.port, http=http))
    answer = await one.talk(get())
    assert status(answer) == 503
    assert fields(answer, b"server") == own


async def test_names_with_underscores(one: Worker) -> None:
    app = App()
    request = get(headers=b"x_a: 1\r\nx-b: 2\r\n")
    await through(one, app, request)
    assert fields(app.heads[-1], b"x_a") == [b"1"]
    await through(one, app, request, headers_with_underscores_action="DROP_HEADER")
    assert fields(app.heads[-1], b"x_a") == []
    assert fields(app.heads[-1], b"x-b") == [b"2"]
    answer = await through(one, app, request, headers_with_underscores_action="REJECT_REQUEST")
    assert status(answer) == 400
    assert len(app.heads) == 2


async def test_a_trailer_with_an_underscore_is_dropped_with_the_rest(one: Worker) -> None:
    got: list[bytes] = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n") + await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    request = (
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"1\r\nx\r\n0\r\nx_a: 1\r\nx-b: 2\r\n\r\n"
    )
    async with upstream(app) as port:
        for action in ("ALLOW", "DROP_HEADER"):
            await one.apply(snapshot(one.port, port, http={"headers_with_underscores_action": action}))
            assert status(await one.talk(request)) == 200
    assert got[0].endswith(b"1\r\nx\r\n0\r\nx_a: 1\r\nx-b: 2\r\n\r\n")
    assert got[1].endswith(b"1\r\nx\r\n0\r\nx-b: 2\r\n\r\n")


# ---- header mutations of routes


def mutated(port: int, ports: list[int], headers: HeaderMutations, http: dict[str, Any] | None = None) -> Snapshot:
    """A route to the app and a direct response, both with the same mutations."""
    action = ForwardAction((WeightedCluster("app"),), retry=RetryPolicy(frozenset(("connect-failure",))))
    direct = Route(RouteMatch("prefix", "/direct"), DirectResponse(200, b"d"), headers=headers)
    rest = Route(RouteMatch("prefix", "/x"), action, headers=headers)
    routes = RouteConfiguration("r", (VirtualHost("all", ("*",), (direct, rest)),))
    return snapshot(port, *ports, http={"route_config": routes, **(http or {})})


def add(name: str, value: str, action: Any = "APPEND_IF_EXISTS_OR_ADD") -> HeaderValueOption:
    return HeaderValueOption(name, value, action)


async def test_a_route_changes_requests(one: Worker, tmp_path: Path) -> None:
    log = tmp_path / "log"
    headers = HeaderMutations(
        request_add=(
            add("x-a", "%REQ(x-b)% from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% by %PROTOCOL%"),
            add("x-none", "%REQ(x-nowhere)%"),
            add("x-request-id", "fixed", OVERWRITE),
            add("x-forwarded-proto", "wss", OVERWRITE),
        ),
        request_remove=("x-secret", "user-agent"),
    )
    app = App()
    logs = (AccessLog(str(log), json_format=(("id", "%REQ(X-REQUEST-ID)%"), ("a", "%REQ(X-A)%"))),)
    async with upstream(app) as port:
        await one.apply(mutated(one.port, [free_port(), port], headers, {"access_logs": logs}))
        sent = get(b"/x", b"x-b: 7\r\nx-secret: 1\r\nuser-agent: u\r\nx-request-id: mine\r\n")
        await one.talk(sent)
        await one.talk(sent)  # one of the two was retried on the other endpoint: changed once all the same
        await one.send(channel.Drain(0))
        await one.process.wait()
    assert len(app.heads) == 2
    for head in app.heads:
        assert fields(head, b"x-a") == [b"7 from 127.0.0.1 by HTTP/1.1"]
        assert fields(head, b"x-request-id") == [b"fixed"]
        assert fields(head, b"x-forwarded-proto") == [b"wss"]
        for gone in (b"x-none", b"x-secret", b"user-agent"):
            assert fields(head, gone) == []
    last = json.loads(log.read_text().splitlines()[-1])
    assert last == {"id": "fixed", "a": "7 from 127.0.0.1 by HTTP/1.1"}


async def test_a_route_changes_responses_also_our_own(one: Worker) -> None:
    headers = HeaderMutations(
        response_add=(
            add("x-code", "%RESPONSE_CODE%"),
            add("date", "never", OVERWRITE),
            add("server", "mine", OVERWRITE),
        ),
        response_remove=("x-inner",),
    )
    app = App(b"x-inner: 1\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: app\r\n")
    async with upstream(app) as port:
        for keep, server in (("OVERWRITE", b"pillion"), ("PASS_THROUGH", b"mine")):
            await one.apply(mutated(one.port, [port], headers, {"server_header_transformation": keep}))
            answer = await one.talk(get(b"/x"))
            assert fields(answer, b"x-code") == [b"200"]
            assert fields(answer, b"x-inner") == []
            assert fields(answer, b"date") == [b"never"]
            assert fields(answer, b"server") == [server]
            answer = await one.talk(get(b"/direct"))
            assert fields(answer, b"date") == [b"never"]
            assert answer.endswith(b"\r\n\r\nd")
    await one.apply(mutated(one.port, [], headers))
    answer = await one.talk(get(b"/x"))
    assert status(answer) == 503
    assert len(fields(answer, b"x-code")) == 1
    answer = await one.talk(get(b"/nowhere"))
    assert status(answer) == 404
    assert fields(answer, b"x-code") == []
