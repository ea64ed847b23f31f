"""From sources to one consistent snapshot; names; the log's lines."""

import asyncio
import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent import state as state_module
from proxy.agent.dns import Resolver, resolved, usable
from proxy.agent.log import Formatter
from proxy.agent.state import Identity, Sources, State, Warming, assemble, missing
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.listener import FilterChain, HttpConnectionManager, Listener
from proxy.config.model import Address, TlsCertificate, TrustBundle, UpstreamTls, Validation
from proxy.config.route import ForwardAction, Route, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster
from proxy.config.snapshot import Snapshot, consistent


def eds(*names, **options):
    return {name: Cluster(name, "EDS", name, **options) for name in names}


def assignment(name, *ports):
    return LoadAssignment(name, tuple(Endpoint(Address("10.0.0.1", port)) for port in ports))


IDENTITY = Identity(TlsCertificate("default", "CHAIN", "k"), TrustBundle("ROOTCA", "PEM"), b"CHAIN KEY")
HTTP = HttpConnectionManager("s", rds="outbound")
LISTENER = Listener("l", Address("127.0.0.1", 1), FilterChain(HTTP))


def test_identity_completes_what_refers_to_it():
    tls = UpstreamTls("default", Validation("ROOTCA"))
    snapshot = Snapshot(clusters=eds("a", tls=tls), assignments={"a": assignment("a")})
    assert consistent(assemble(Sources(snapshot), {}))
    assert not consistent(assemble(Sources(snapshot, identity=IDENTITY), {}))


def test_what_is_overdue_counts_as_empty():
    sources = Sources(Snapshot(listeners={"l": LISTENER}, clusters=eds("a")))
    absent = missing(assemble(sources, {}))
    assert absent == {("assignments", "a"), ("routes", "outbound")}
    full = assemble(sources, {}, absent)
    assert full.assignments["a"].endpoints == ()
    assert full.routes["outbound"].virtual_hosts == ()
    assert not consistent(full)


def test_what_is_there_is_not_emptied():
    sources = Sources(Snapshot(clusters=eds("a"), assignments={"a": assignment("a", 1)}))
    full = assemble(sources, {}, frozenset({("assignments", "a")}))
    assert full.assignments["a"] == assignment("a", 1)


def test_warming_ends_after_its_time():
    warming, a, b = Warming(15.0), ("assignments", "a"), ("routes", "b")
    assert warming.update(frozenset({a}), 0.0) == frozenset()
    assert warming.next(0.0) == 15.0
    assert warming.update(frozenset({a, b}), 10.0) == frozenset()
    assert warming.next(10.0) == 5.0
    assert warming.update(frozenset({a, b}), 15.0) == {a}
    assert warming.next(15.0) == 10.0
    assert warming.update(frozenset({b}), 25.0) == {b}
    assert warming.next(25.0) is None
    assert warming.update(frozenset({a}), 26.0) == frozenset()  # gone in between: its time starts afresh


@pytest.fixture
async def published():
    found = []
    subject = State(lambda snapshot, keys: found.append((snapshot, keys)))
    subject.found = found
    yield subject
    await subject.stop()


async def test_a_burst_is_published_once_and_the_same_is_not_published_again(published):
    for port in range(1, 50):
        published.set_configuration(Snapshot(clusters=eds("a"), assignments={"a": assignment("a", port)}), {}, {})
    await asyncio.sleep(0.03)
    assert [s.assignments["a"] for s, _ in published.found] == [assignment("a", 49)]
    published.set_configuration(Snapshot(clusters=eds("a"), assignments={"a": assignment("a", 49)}), {}, {})
    await asyncio.sleep(0.03)
    assert len(published.found) == 1


async def test_an_identity_alone_is_nothing_and_brings_its_key_later(published):
    published.set_identity(IDENTITY)
    await asyncio.sleep(0.03)
    assert published.found == []
    published.set_configuration(Snapshot(), {}, {"file": b"F"})
    await asyncio.sleep(0.03)
    assert published.found[0][1] == {"file": b"F", "default": b"CHAIN KEY"}


async def test_an_inconsistent_state_waits_and_says_for_what(published, monkeypatch):
    monkeypatch.setattr(published, "_warming", Warming(0.1))
    published.set_configuration(Snapshot(clusters=eds("a")), {}, {})
    await asyncio.sleep(0.03)
    assert published.found == []
    assert published.waiting_for == ("cluster 'a' refers to load assignment 'a', which does not exist",)
    await asyncio.sleep(0.15)
    assert published.found[0][0].assignments["a"].endpoints == ()
    assert published.waiting_for == ()


def routes_to(*clusters):
    routes = (Route(RouteMatch("prefix", "/"), ForwardAction((WeightedCluster(name),)), name) for name in clusters)
    return {"outbound": RouteConfiguration("outbound", (VirtualHost("h", ("*",), tuple(routes)),))}


async def test_a_route_to_a_cluster_that_never_comes_holds_back_nothing_for_long(published, monkeypatch):
    monkeypatch.setattr(published, "_warming", Warming(0.1))
    good = Snapshot({"l": LISTENER}, routes_to("a"), eds("a"), {"a": assignment("a", 1)})
    published.set_configuration(good, {}, {})
    await asyncio.sleep(0.03)
    published.set_configuration(
        replace(good, routes=routes_to("a", "b"), assignments={"a": assignment("a", 2)}), {}, {}
    )
    await asyncio.sleep(0.03)
    assert [snapshot for snapshot, _ in published.found] == [good]
    assert published.waiting_for == ("route configuration 'outbound' refers to cluster 'b', which does not exist",)
    await asyncio.sleep(0.15)
    snapshot = published.found[-1][0]
    assert snapshot.assignments["a"] == assignment("a", 2)
    assert snapshot.assignments[snapshot.clusters["b"].load_assignment].endpoints == ()
    assert published.waiting_for == ()
    published.set_configuration(  # it came after all
        replace(
            good,
            routes=routes_to("a", "b"),
            clusters=eds("a", "b"),
            assignments={"b": assignment("b", 3), **good.assignments},
        ),
        {},
        {},
    )
    await asyncio.sleep(0.03)
    assert published.found[-1][0].assignments["b"] == assignment("b", 3)


async def test_a_certificate_is_waited_for_without_end(published, monkeypatch):
    monkeypatch.setattr(published, "_warming", Warming(0.02))
    tls = UpstreamTls("default", Validation("ROOTCA"))
    published.set_configuration(Snapshot(clusters=eds("a", tls=tls), assignments={"a": assignment("a")}), {}, {})
    await asyncio.sleep(0.1)
    assert published.found == []


def test_reprs_hide_keys():
    assert b"KEY".decode() not in repr(Sources(identity=IDENTITY, keys={"x": b"KEY"}))
    assert state_module.DEBOUNCE <= 0.010


# ---- names -----


def test_each_answer_is_an_endpoint_with_the_name_s_port_weight_and_labels():
    endpoint = Endpoint(Address("db.example", 5432), 7, True, (("zone", "a"),))
    literal = Endpoint(Address("10.0.0.9", 1))
    answers = {"db.example": ("10.0.0.1", "10.0.0.2")}
    assert resolved(LoadAssignment("db", (endpoint, literal)), {}) is None
    assert resolved(LoadAssignment("db", (endpoint, literal)), answers).endpoints == (
        Endpoint(Address("10.0.0.1", 5432), 7, True, (("zone", "a"),)),
        Endpoint(Address("10.0.0.2", 5432), 7, True, (("zone", "a"),)),
        literal,
    )


def test_ipv4_wins_duplicates_go_and_the_order_is_stable():
    assert usable(["::1", "10.0.0.10", "10.0.0.9", "10.0.0.10"]) == ("10.0.0.9", "10.0.0.10")
    assert usable(["fe80::1%eth0", "::1"]) == ("::1", "fe80::1")
    assert usable([]) == ()


@given(st.lists(st.ip_addresses().map(str)))
def test_the_order_of_an_answer_does_not_matter(addresses):
    assert usable(addresses) == usable(addresses[::-1]) == usable(sorted(addresses))


async def test_a_failed_lookup_keeps_the_last_good_answer():
    answers, changes, asked = [["10.0.0.1"], OSError("gone"), ["10.0.0.2"]], [], []

    def lookup(name):
        asked.append(name)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    resolver = Resolver(lambda: changes.append(resolver.answers["db"]), lookup, refresh=0.01)
    resolver.want(frozenset({"db"}))
    async with asyncio.timeout(5):
        while len(changes) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert changes == [("10.0.0.1",), ("10.0.0.2",)]
    assert len(asked) >= 3
    await resolver.stop()
    assert resolver.answers == {}


async def test_a_name_that_does_not_resolve_is_an_empty_answer():
    changes = []

    def lookup(name):
        raise OSError("no such name")

    resolver = Resolver(lambda: changes.append(dict(resolver.answers)), lookup)
    resolver.want(frozenset({"nowhere"}))
    async with asyncio.timeout(5):
        while not changes:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert changes == [{"nowhere": ()}]
    await resolver.stop()


# ---- log -----


@given(st.text())
def test_a_message_is_one_line(text):
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "%s", (text,), None)
    line = Formatter("agent").format(record)
    assert "\n" not in line
    assert "\r" not in line
    assert line[23:38] == "Z WARN  agent  "
