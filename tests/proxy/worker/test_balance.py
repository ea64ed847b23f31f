"""Load balancing in a real worker: affinity by header and cookie, and what happens to it when an endpoint goes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace

from proxy.config.balance import LoadBalancing, Locality, Subsets, SubsetSelector
from proxy.config.cluster import LoadAssignment, OutlierDetection
from proxy.config.route import HashPolicy, WeightedCluster
from tests.support.worker import Handler, Worker, snapshot, upstream, worker


def app(name: bytes) -> Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name))

    return answer


@contextlib.asynccontextmanager
async def apps(count: int) -> AsyncIterator[list[int]]:
    """Ports of apps that answer with their number."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(upstream(app(b"%d" % index))) for index in range(count)]


async def ask(one: Worker, *fields: bytes) -> tuple[int, bytes]:
    """(who answered, the head of the answer)."""
    lines = b"".join(field + b"\r\n" for field in fields)
    answer = await one.talk(b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n" + lines + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(body), head


async def test_affinity() -> None:
    user = HashPolicy("header", "x-user", terminal=True)
    action = {"hash_policy": (user, HashPolicy("cookie", "sid", ttl=60.0))}
    async with worker() as one, apps(4) as ports:
        for policy in ("RING_HASH", "MAGLEV"):
            good = snapshot(one.port, *ports, action=action, cluster={"lb_policy": policy})
            assert await one.apply(good) is None
            users = [b"x-user: %d" % i for i in range(12)]
            first = [(await ask(one, user))[0] for user in users]
            assert len(set(first)) > 1
            assert [(await ask(one, user))[0] for user in users] == first
            # Without the header a cookie does it, which the first answer sets.
            who, head = await ask(one)
            (cookie,) = re.findall(rb"set-cookie: (sid=[^;]+); Max-Age=60; HttpOnly", head)
            again = [await ask(one, b"cookie: a=b; " + cookie) for _ in range(4)]
            assert {name for name, _ in again} == {who}
            assert not any(b"set-cookie" in head for _, head in again)
            # Only the users of the endpoint that goes find themselves elsewhere.
            left = good.assignments["app"].endpoints[first[0] ^ 1]
            some = tuple(e for e in good.assignments["app"].endpoints if e is not left)
            fewer = replace(good, assignments={"app": replace(good.assignments["app"], endpoints=some)})
            assert await one.apply(fewer) is None
            after = [(await ask(one, user))[0] for user in users]
            gone = first[0] ^ 1
            assert gone not in after
            moved = [b for b, a in zip(first, after, strict=True) if a != b]
            assert policy == "MAGLEV" or set(moved) <= {gone}


async def test_peak_ewma_measures_what_answers_take() -> None:
    """A slow app is asked once, if at all: its first answer shows what it is."""
    slow = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal slow
        await reader.readuntil(b"\r\n\r\n")
        slow += 1
        await asyncio.sleep(0.1)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n9")

    async with worker() as one, apps(3) as ports, upstream(late) as bad:
        assert await one.apply(snapshot(one.port, *ports, bad, cluster={"lb_policy": "PEAK_EWMA"})) is None
        for _ in range(60):
            await ask(one)
        assert slow <= 2  # a quarter of them, if nothing were measured


async def test_a_priority_that_fails_is_left_and_found_again() -> None:
    """Outlier detection takes out who answers 503, the next priority takes over what that leaves undone."""
    ill = False

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"503 Ill" if ill else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: 1\r\n\r\n9" % status)

    detection = OutlierDetection(consecutive_5xx=1, base_ejection_time=0.3, max_ejection_percent=100)
    cluster = {"outlier_detection": detection, "load_balancing": LoadBalancing(healthy_panic_threshold=0.0)}
    async with worker() as one, apps(2) as ports, upstream(answer) as first:
        config = snapshot(one.port, first, *ports, cluster=cluster)
        places = [Locality(0), Locality(1), Locality(1)]
        endpoints = zip(config.assignments["app"].endpoints, places, strict=True)
        tiers = tuple(replace(endpoint, locality=place) for endpoint, place in endpoints)
        assert await one.apply(replace(config, assignments={"app": LoadAssignment("app", tiers)})) is None
        assert {(await ask(one))[0] for _ in range(6)} == {9}
        ill = True
        assert {(await ask(one))[0] for _ in range(7)} == {9, 0, 1}  # the first of them told what had happened
        ill = False
        async with asyncio.timeout(5):
            while (await ask(one))[0] != 9:
                pass


async def test_a_route_asks_for_a_subset() -> None:
    subsets = Subsets((SubsetSelector(("v",)),))
    wanted = (("v", '"2"'),)
    async with worker() as one, apps(3) as ports:
        action = {"clusters": (WeightedCluster("app", 1, wanted),)}
        config = snapshot(one.port, *ports, action=action, cluster={"load_balancing": LoadBalancing(subsets=subsets)})
        endpoints = config.assignments["app"].endpoints
        marked = tuple(replace(endpoint, metadata=wanted) for endpoint in endpoints[1:])
        assert (
            await one.apply(replace(config, assignments={"app": LoadAssignment("app", endpoints[:1] + marked)})) is None
        )
        assert {(await ask(one))[0] for _ in range(6)} == {1, 2}
        assert await one.apply(config) is None  # no endpoint has it
        answer = await one.talk(b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
