"""The checks of whole clusters, against servers that are well or not."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import Any

import pytest

from proxy.agent.metrics import Metrics
from proxy.agent.state import State
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.health_check import EndpointHealthCheck, HealthCheck, HttpCheck, TcpCheck
from proxy.config.model import (
    Address,
    SanMatcher,
    StringMatcher,
    TlsCertificate,
    TrustBundle,
    UpstreamTls,
    Validation,
)
from proxy.config.snapshot import Snapshot
from tests.support.certificates import Authority
from tests.support.wait import until
from tests.support.worker import free_port, upstream

CHECK = HealthCheck(HttpCheck("/"), 1.0, 0.02, 2, 2, no_traffic_interval=0.02)


class App:
    """Well or not."""

    def __init__(self) -> None:
        self.status = 200
        self.hosts: set[bytes] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.hosts.add(head.split(b"\r\n")[1])
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)


class Subject(State):
    """With what it has published, and whose checks have passed."""

    def __init__(self) -> None:
        self.found: list[Snapshot] = []
        self.passed: list[tuple[str, Address]] = []
        self.counted = Metrics()
        super().__init__(
            lambda snapshot, keys: self.found.append(snapshot), lambda *who: self.passed.append(who), self.counted
        )

    def failed(self) -> set[int]:
        return {address.port for address in self.found[-1].health["app"].failed} if self.found else {-1}

    def kept(self) -> list[int]:
        return [endpoint.address.port for endpoint in self.found[-1].health["app"].kept]

    def configure(self, *endpoints: int | Endpoint, keys: Any = None, certificates: Any = None, **cluster: Any) -> None:
        listed = tuple(one if isinstance(one, Endpoint) else Endpoint(Address("127.0.0.1", one)) for one in endpoints)
        fields = {"discovery": "EDS", "load_assignment": "app", "health_check": CHECK, **cluster}
        snapshot = Snapshot(
            clusters={"app": Cluster("app", **fields)}, assignments={"app": LoadAssignment("app", listed)}
        )
        if certificates is not None:
            snapshot = replace(snapshot, certificates=certificates[0], bundles=certificates[1])
        self.set_configuration(snapshot, {}, keys or {})


@pytest.fixture
async def subject():
    one = Subject()
    yield one
    await one.stop()


async def test_the_first_configuration_waits_for_the_first_checks_and_then_follows_them(subject: Subject) -> None:
    app, dead = App(), free_port()
    async with upstream(app) as port:
        subject.configure(port, dead)
        await until(lambda: subject.found, 5)
        assert len(subject.found) == 1
        assert subject.failed() == {dead}
        assert subject.found[-1].health["app"].pending == ()
        app.status = 503
        await until(lambda: subject.failed() == {port, dead}, 5)
        app.status = 200
        await until(lambda: subject.failed() == {dead}, 5)
        assert subject.passed[0] == ("app", Address("127.0.0.1", port))
        assert app.hosts == {b"host: app"}
        values = {name: subject.counted.value(f"health_check_{name}_total", cluster="app") for name in
                  ("attempt", "success", "failure", "network_failure")}  # fmt: skip
        assert values["attempt"] >= values["success"] + values["failure"] > 3
        assert 0 < values["network_failure"] < values["failure"]
        # No checks any more: everybody counts as healthy.
        subject.configure(port, dead, health_check=None)
        await until(lambda: not subject.found[-1].health, 5)


async def test_an_endpoint_that_never_answers_holds_nothing_back_for_long(subject: Subject) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as port:
        slow = replace(CHECK, timeout=0.1)
        subject.configure(port, health_check=slow)
        await until(lambda: subject.waiting_for, 5)
        assert "first health check" in subject.waiting_for[0]
        assert subject.found == []
        await until(lambda: subject.found, 5)
        assert subject.failed() == {port}


async def test_a_new_endpoint_is_out_until_its_first_check(subject: Subject) -> None:
    app = App()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(app) as port, upstream(silent) as new:
        subject.configure(port)
        await until(lambda: subject.found and subject.failed() == set(), 5)
        subject.configure(port, new)
        await until(lambda: subject.failed() == {new}, 5)
        assert [address.port for address in subject.found[-1].health["app"].pending] == [new]


async def test_who_is_not_listed_any_more_stays_while_it_is_well(subject: Subject) -> None:
    first, second = App(), App()
    async with upstream(first) as one, upstream(second) as two:
        subject.configure(one, two)
        await until(lambda: subject.found and subject.failed() == set(), 5)
        subject.configure(one)
        await until(lambda: subject.kept() == [two], 5)
        second.status = 503
        await until(lambda: subject.kept() == [], 5)
        second.status = 200
        subject.configure(one, two)
        await until(lambda: len(subject.found[-1].assignments["app"].endpoints) == 2 and not subject.failed(), 5)
        subject.configure(one, ignore_health_on_host_removal=True)
        await until(lambda: len(subject.found[-1].assignments["app"].endpoints) == 1, 5)
        assert subject.kept() == []


async def test_an_endpoint_may_be_checked_elsewhere_or_not_at_all(subject: Subject) -> None:
    app = App()
    app.status = 503
    well = App()
    async with upstream(app) as port, upstream(well) as other:
        subject.configure(
            Endpoint(Address("127.0.0.1", port), health_check=EndpointHealthCheck(other, "its.name")),
            Endpoint(Address("127.0.0.1", other), health_check=EndpointHealthCheck(disabled=True)),
            free_port(),
        )
        await until(lambda: subject.found, 5)
        assert len(subject.failed()) == 1
        assert not subject.failed() & {port, other}
        assert well.hosts == {b"host: its.name"}
        assert app.hosts == set()
        subject.configure(free_port(), health_check=replace(CHECK, check=TcpCheck(), alt_port=other))
        await until(lambda: subject.failed() == set(), 5)


ME, APP = "spiffe://test/service/me", "spiffe://test/service/app"


@pytest.mark.parametrize(("name", "good"), [(APP, True), ("spiffe://test/service/other", False)])
async def test_checks_go_over_the_clusters_own_tls(subject: Subject, tmp_path: Any, name: str, good: bool) -> None:
    ca = Authority()
    chain, key = ca.issue(name).write(tmp_path, "app")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(cadata=ca.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    app = App()
    tasks: set[Any] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await app(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    mine = ca.issue(ME)
    mine_chain, mine_key = mine.write(tmp_path, "me")
    matcher = SanMatcher("URI", StringMatcher("exact", APP))
    subject.configure(
        port,
        tls=UpstreamTls("default", Validation("roots", (matcher,))),
        keys={"default": mine_chain.read_bytes() + mine_key.read_bytes()},
        certificates=(
            {"default": TlsCertificate("default", mine_chain.read_text(), "1")},
            {"roots": TrustBundle("roots", ca.pem)},
        ),
    )
    await until(lambda: subject.found, 5)
    assert subject.failed() == (set() if good else {port})
    await subject.stop()
    server.close()
    await asyncio.gather(*tasks, return_exceptions=True)
