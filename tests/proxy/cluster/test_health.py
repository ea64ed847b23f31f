"""What active health checks found reaches the endpoints, and nothing else is touched by it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.manager import ClusterManager
from proxy.config.cluster import Cluster, ClusterHealth, Endpoint, LoadAssignment
from proxy.config.model import Address
from proxy.config.snapshot import Snapshot, diff
from proxy.telemetry.counters import Counters

PORTS = st.sets(st.integers(1, 5))


def address(port: int) -> Address:
    return Address("10.0.0.1", port)


def snapshot(listed: set[int], ill: set[int], failed: set[int], kept: set[int]) -> Snapshot:
    endpoints = tuple(Endpoint(address(port), healthy=port not in ill) for port in sorted(listed))
    checks = ClusterHealth(
        "checked",
        tuple(address(port) for port in sorted(failed)),
        (),
        tuple(Endpoint(address(p)) for p in kept - listed),
    )
    return Snapshot(
        clusters={name: Cluster(name, "EDS", "all") for name in ("checked", "other")},
        assignments={"all": LoadAssignment("all", endpoints)},
        health={"checked": checks} if failed or kept else {},
    )


@given(st.lists(st.tuples(PORTS, PORTS, PORTS, PORTS), min_size=1, max_size=6))
def test_endpoints_are_as_healthy_as_the_last_snapshot_says(
    walk: list[tuple[set[int], set[int], set[int], set[int]]],
) -> None:
    manager, now = ClusterManager(Counters(), lambda: 0.0), Snapshot()
    for listed, ill, failed, kept in walk:
        following = snapshot(listed, ill, failed, kept)
        clusters, delta, now = manager.prepare(following), diff(now, following), following
        manager.apply(following, delta, clusters)
        checked, other = manager.clusters["checked"].endpoints, manager.clusters["other"].endpoints
        assert {at.port: one.serving for at, one in other.items()} == {port: port not in ill for port in listed}
        assert {at.port: one.serving for at, one in checked.items()} == {
            port: port not in failed and not (port in listed and port in ill) for port in listed | kept
        }


def test_a_check_keeps_endpoints_and_their_connections() -> None:
    manager, now = ClusterManager(Counters(), lambda: 0.0), snapshot({1, 2}, set(), set(), set())
    manager.apply(now, diff(Snapshot(), now), manager.prepare(now))
    state = manager.clusters["checked"]
    before = list(state.endpoints.values())
    connection = object()
    before[0].idle[connection] = None
    following = snapshot({1, 2}, set(), {1}, set())
    assert manager.apply(following, diff(now, following), manager.prepare(following)) == []
    assert list(state.endpoints.values()) == before
    assert list(before[0].idle) == [connection]
    assert {state.picker.pick() for _ in range(4)} == {before[1]}
