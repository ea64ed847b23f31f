"""Clusters follow snapshots by difference: what stays keeps its objects, what is gone is handed back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.manager import ClusterManager
from proxy.cluster.state import Endpoint
from proxy.config.balance import LoadBalancing
from proxy.config.cluster import Cluster, LoadAssignment
from proxy.config.cluster import Endpoint as EndpointConfig
from proxy.config.model import Address, UpstreamTls
from proxy.config.snapshot import Snapshot, diff
from proxy.telemetry.counters import Counters


class Mesh:
    """A manager and the snapshot that it has."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.manager = ClusterManager(self.counters, lambda: 0.0)
        self.snapshot = Snapshot()

    def apply(self, snapshot: Snapshot) -> list[Endpoint]:
        delta = diff(self.snapshot, snapshot)
        clusters = self.manager.prepare(snapshot)
        self.snapshot = snapshot
        return self.manager.apply(snapshot, delta, clusters)

    def ports(self, name: str) -> list[int]:
        return sorted(address.port for address in self.manager.clusters[name].endpoints)

    def gauges(self) -> set[str]:
        return {dict(labels)["cluster"] for (_, labels), _ in self.counters.take()[1]}


def snapshot(clusters: dict[str, str], assignments: dict[str, tuple[int, ...]]) -> Snapshot:
    return Snapshot(
        clusters={name: Cluster(name, "EDS", assignment) for name, assignment in clusters.items()},
        assignments={
            name: LoadAssignment(name, tuple(EndpointConfig(Address("10.0.0.1", port)) for port in ports))
            for name, ports in assignments.items()
        },
    )


NAMES = st.sampled_from(["a", "b", "c"])
SNAPSHOTS = st.builds(
    lambda assignments, clusters: snapshot(
        {name: wanted for name, wanted in clusters.items() if wanted in assignments}, assignments
    ),
    st.dictionaries(NAMES, st.sets(st.integers(1, 4)).map(tuple), min_size=1),
    st.dictionaries(NAMES, NAMES),
)


@given(st.lists(SNAPSHOTS, max_size=6))
def test_any_walk_ends_where_the_last_snapshot_is(walk: list[Snapshot]) -> None:
    mesh = Mesh()
    for step in walk:
        before = {name: dict(state.endpoints) for name, state in mesh.manager.clusters.items()}
        gone = mesh.apply(step)
        assert mesh.manager.clusters.keys() == step.clusters.keys()
        for name, config in step.clusters.items():
            wanted = step.assignments[config.load_assignment]
            assert mesh.ports(name) == sorted(endpoint.address.port for endpoint in wanted.endpoints)
            state = mesh.manager.clusters[name]
            assert all(before.get(name, {}).get(a, e) is e for a, e in state.endpoints.items())
            assert not any(endpoint.removed for endpoint in state.endpoints.values())
            picked = state.picker.pick()
            assert picked in state.endpoints.values() if state.endpoints else picked is None
        held = {id(e) for state in mesh.manager.clusters.values() for e in state.endpoints.values()}
        assert {id(e) for e in gone} == {id(e) for es in before.values() for e in es.values()} - held
        assert all(endpoint.removed for endpoint in gone)
        mesh.gauges()
        assert mesh.gauges() == set(step.clusters)


def test_endpoints_keep_their_objects_and_take_over_what_changed() -> None:
    mesh = Mesh()
    mesh.apply(snapshot({"a": "a"}, {"a": (1, 2)}))
    first, second = mesh.manager.clusters["a"].endpoints.values()
    first.active = 7
    first.idle["a connection"] = None
    changed = replace(
        mesh.snapshot,
        assignments={"a": LoadAssignment("a", (EndpointConfig(Address("10.0.0.1", 1), 5, False, (("v", "2"),)),))},
    )
    assert mesh.apply(changed) == [second]
    assert list(mesh.manager.clusters["a"].endpoints.values()) == [first]
    assert (first.weight, first.healthy, first.active) == (5, False, 7)
    assert list(first.idle) == ["a connection"]
    assert mesh.manager.clusters["a"].picker.pick() is first  # not healthy, but with no other Envoy, too, is in panic
    calm = replace(mesh.snapshot.clusters["a"], load_balancing=LoadBalancing(healthy_panic_threshold=0.0))
    mesh.apply(replace(changed, clusters={"a": calm}))
    assert mesh.manager.clusters["a"].picker.pick() is None


def test_slow_start_is_for_who_comes_while_others_serve() -> None:
    mesh = Mesh()
    mesh.apply(snapshot({"a": "a"}, {"a": (1,)}))
    mesh.apply(snapshot({"a": "a"}, {"a": (1, 2)}))
    first, second = mesh.manager.clusters["a"].endpoints.values()
    assert first.since == 0
    assert second.since > 0
    for healthy in (False, True):
        config = EndpointConfig(Address("10.0.0.1", 1), healthy=healthy)
        other = EndpointConfig(Address("10.0.0.1", 2))
        mesh.apply(replace(mesh.snapshot, assignments={"a": LoadAssignment("a", (config, other))}))
    assert first.since > second.since  # it was away


def test_other_settings_leave_endpoints_alone_and_tls_does_not() -> None:
    mesh = Mesh()
    mesh.apply(snapshot({"a": "a"}, {"a": (1,)}))
    cluster = mesh.manager.clusters["a"]
    (endpoint,) = cluster.endpoints.values()
    slower = replace(mesh.snapshot.clusters["a"], connect_timeout=9.0, lb_policy="RANDOM")
    assert mesh.apply(replace(mesh.snapshot, clusters={"a": slower})) == []
    assert mesh.manager.clusters["a"] is cluster
    assert cluster.config is slower
    assert list(cluster.endpoints.values()) == [endpoint]
    # Connections made without TLS must not serve a cluster that has it.
    secured = replace(slower, tls=UpstreamTls(sni="a"))
    assert mesh.apply(replace(mesh.snapshot, clusters={"a": secured})) == [endpoint]
    assert mesh.ports("a") == [1]


def test_what_cannot_be_is_refused_before_anything_changes() -> None:
    mesh = Mesh()
    mesh.apply(snapshot({"a": "a"}, {"a": (1,)}))
    mesh.counters.take()
    bad = snapshot({"a": "a", "b": "nowhere"}, {"a": (2,)})
    with pytest.raises(LookupError, match="nowhere"):
        mesh.apply(bad)
    strange = replace(mesh.snapshot.clusters["a"], lb_policy="NO_SUCH")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NO_SUCH"):
        mesh.apply(replace(mesh.snapshot, clusters={"a": strange}))
    assert mesh.ports("a") == [1]
    assert mesh.gauges() == {"a"}
