"""Updates: whole or not at all, and what is under way is not disturbed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.cluster import Cluster
from proxy.config.listener import HttpFilter
from proxy.config.model import Address, StringMatcher
from proxy.config.route import HeaderMatcher, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.support.worker import Worker, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


class Held:
    """An app that answers `name` when it is released."""

    def __init__(self, name: bytes = b"ok") -> None:
        self.name = name
        self.asked, self.release = asyncio.Event(), asyncio.Event()
        self.closed = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked.set()
                await self.release.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(self.name), self.name))
        finally:
            self.closed += 1


def with_listener(config: Snapshot, **changes: object) -> Snapshot:
    return replace(config, listeners={"main": replace(config.listeners["main"], **changes)})  # type: ignore[arg-type]


def bad_ones(one: Worker, good: Snapshot, port: int) -> dict[str, Snapshot]:
    """Updates that cannot be applied, each for another reason; all of them move the cluster elsewhere, too."""
    moved = snapshot(one.port, port)
    main = moved.listeners["main"]
    chain = main.filter_chain
    regex = RouteMatch("prefix", "/", headers=(HeaderMatcher("x", StringMatcher("safe_regex", "(")),))
    routes = RouteConfiguration("r", (VirtualHost("v", ("*",), (Route(regex, moved_action(moved), "bad"),)),))
    return {
        "no socket for the address": with_listener(moved, address=Address("127.0.0.1", 1)),
        "a regex": with_listener(moved, filter_chain=replace(chain, http=replace(chain.http, route_config=routes))),
        "a filter": with_listener(
            moved,
            filter_chain=replace(chain, http=replace(chain.http, http_filters=(HttpFilter("f", "no.such.filter"),))),
        ),
        "no assignment": replace(moved, clusters={"app": replace(moved.clusters["app"], load_assignment="gone")}),
        "a policy": replace(moved, clusters={"app": replace(moved.clusters["app"], lb_policy="NO_SUCH")}),  # type: ignore[arg-type]
        "a route to nowhere": replace(moved, clusters={"other": Cluster("other", "STATIC", "app")}),
        "no key": with_listener(
            moved, filter_chain=replace(chain, http=replace(chain.http, route_config=None, rds="nowhere"))
        ),
    }


def moved_action(config: Snapshot) -> object:
    routes = config.listeners["main"].filter_chain.http.route_config
    assert routes is not None
    return routes.virtual_hosts[0].routes[0].action


async def test_a_refused_update_changes_nothing(one: Worker) -> None:
    old, new = Held(b"old"), Held(b"new")
    old.release.set()
    new.release.set()
    async with upstream(old) as first, upstream(new) as second:
        good = snapshot(one.port, first)
        assert await one.apply(good) is None
        for what, bad in bad_ones(one, good, second).items():
            error = await one.apply(bad)
            assert error is not None, what
            assert (await one.talk(LAST)).endswith(b"old"), what
        assert await one.apply(snapshot(one.port, second)) is None
        assert (await one.talk(LAST)).endswith(b"new")


async def test_an_endpoint_removed_in_use(one: Worker) -> None:
    old, new = Held(b"old"), Held(b"new")
    new.release.set()
    async with upstream(old) as first, upstream(new) as second:
        await one.apply(snapshot(one.port, first))
        under_way = asyncio.create_task(one.talk(LAST))
        await old.asked.wait()
        assert await one.apply(snapshot(one.port, second)) is None
        assert (await one.talk(LAST)).endswith(b"new")
        old.release.set()
        assert (await under_way).endswith(b"old")
        async with asyncio.timeout(2):
            while not old.closed:  # not kept: nobody would use it again  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_cluster_removed_and_added_again(one: Worker) -> None:
    app = Held()
    async with upstream(app) as port:
        with_app = snapshot(one.port, port)
        without = Snapshot(
            listeners=snapshot(one.port, port, http={"route_config": RouteConfiguration("r", ())}).listeners
        )
        await one.apply(with_app)
        under_way = asyncio.create_task(one.talk(LAST))
        await app.asked.wait()
        assert await one.apply(without) is None
        assert (await one.talk(LAST)).startswith(b"HTTP/1.1 404")
        assert await one.apply(with_app) is None
        app.release.set()
        assert (await under_way).endswith(b"ok")
        assert (await one.talk(LAST)).endswith(b"ok")
        assert await one.gauge("upstream_rq_active") == 0
        assert await one.count("upstream_rq_total", cluster="app") == 2


async def test_a_listener_removed_finishes_what_is_under_way(one: Worker) -> None:
    app = Held()
    async with upstream(app) as port:
        config = snapshot(one.port, port)
        await one.apply(config)
        under_way = asyncio.create_task(one.talk(GET))
        await app.asked.wait()
        assert await one.apply(replace(config, listeners={})) is None
        app.release.set()
        answer = await under_way
        assert answer.endswith(b"ok")
        assert b"connection: close" in answer
        assert await one.gauge("downstream_cx_active") == 0


async def test_a_listener_moves_to_another_address(one: Worker) -> None:
    app = Held()
    app.release.set()
    async with upstream(app) as port:
        await one.apply(snapshot(one.port, port))
        other = socket.socket()
        other.bind(("127.0.0.1", 0))
        other.listen(8)
        moved = other.getsockname()[1]
        await one.send(channel.Listen(f"127.0.0.1:{moved}"), other.fileno())
        assert await one.apply(snapshot(moved, port)) is None
        one.port = moved
        assert (await one.talk(LAST)).endswith(b"ok")
        assert await one.gauge("downstream_cx_active") == 0
        other.close()


async def test_refused_updates_leave_no_descriptor(one: Worker, tmp_path: Path) -> None:
    async with upstream(Held()) as port:
        good = snapshot(one.port, port)
        await one.apply(good)
        fds = f"/proc/{one.process.pid}/fd"
        before = len(os.listdir(fds))
        for _ in range(20):
            for bad in bad_ones(one, good, port).values():
                assert await one.apply(bad) is not None
        assert len(os.listdir(fds)) == before
