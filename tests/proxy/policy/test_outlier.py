"""Outlier detection, with time as an argument."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.state import ClusterState
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment, OutlierDetection
from proxy.config.model import Address
from proxy.policy import outlier
from proxy.telemetry.counters import Counters


def state(count: int, **config: int) -> ClusterState:
    detection = OutlierDetection(**{"consecutive_5xx": 3, "max_ejection_percent": 50, **config})
    cluster = ClusterState(Cluster("c", "STATIC", "c", outlier_detection=detection), Counters(), lambda: 0.0)
    cluster.assign(LoadAssignment("c", tuple(Endpoint(Address("127.0.0.1", 1 + i)) for i in range(count))))
    return cluster


def test_a_bad_host_goes_and_comes_back_for_longer_each_time() -> None:
    cluster = state(2)
    bad, good = cluster.endpoints.values()
    assert [cluster.failed(bad, 500, now=10.0) for _ in range(3)] == [0.0, 0.0, 40.0]
    assert {cluster.picker.pick() for _ in range(4)} == {good}
    cluster.restore(39.0)
    assert {cluster.picker.pick() for _ in range(4)} == {good}
    cluster.restore(40.0)
    assert {cluster.picker.pick() for _ in range(4)} == {good, bad}
    assert [cluster.failed(bad, 500, now=50.0) for _ in range(3)][-1] == 110.0


def test_gateway_failures_are_counted_apart() -> None:
    health = outlier.Health()
    config = OutlierDetection(consecutive_5xx=0, consecutive_gateway_failure=2)
    assert [outlier.failed(health, status, config) for status in (503, 500, 503, 502)] == [False, False, False, True]


@given(st.integers(1, 20), st.integers(0, 100), st.lists(st.integers(0, 19), max_size=60))
def test_one_host_is_always_left(count: int, percent: int, failures: list[int]) -> None:
    cluster = state(count, max_ejection_percent=percent, consecutive_5xx=1)
    endpoints = list(cluster.endpoints.values())
    for index in failures:
        cluster.failed(endpoints[index % count], 503, now=1.0)
        ejected = sum(1 for endpoint in endpoints if endpoint.health.ejected_until)
        assert cluster.picker.pick() is not None
        assert ejected <= max(1, count * percent // 100)
