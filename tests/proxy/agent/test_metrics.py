"""Counters across workers and their deaths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.agent.metrics import Metrics
from proxy.telemetry.counters import BUCKETS
from proxy.worker.channel import Stats

RQ = ("downstream_rq_total", (("listener", "l"), ("response_code_class", "2xx")))
ACTIVE = ("downstream_cx_active", (("listener", "l"),))
SECONDS = ("upstream_rq_seconds", (("cluster", "c"),))


def samples(metrics):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def counts(**buckets):
    return tuple(buckets.get(f"b{i}", 0) for i in range(len(BUCKETS) + 1))


def test_counters_survive_a_worker_and_gauges_do_not():
    metrics = Metrics()
    metrics.add(1, Stats(0, ((RQ, 5),), ((ACTIVE, 3.0),), ()))
    metrics.add(2, Stats(0, ((RQ, 2),), ((ACTIVE, 4.0),), ()))
    assert samples(metrics)[RQ] == 7
    assert samples(metrics)[ACTIVE] == 7
    metrics.gone(1)
    metrics.add(3, Stats(0, ((RQ, 1),), ((ACTIVE, 1.0),), ()))
    assert samples(metrics)[RQ] == 8
    assert samples(metrics)[ACTIVE] == 5


def test_histograms_are_cumulative_with_inf():
    metrics = Metrics()
    metrics.add(1, Stats(0, (), (), ((SECONDS, counts(b0=2, b3=1), 0.5),)))
    metrics.add(2, Stats(0, (), (), ((SECONDS, counts(**{f"b{len(BUCKETS)}": 1}), 99.0),)))
    found = samples(metrics)
    cluster = ("cluster", "c")
    assert found["upstream_rq_seconds_bucket", (cluster, ("le", str(BUCKETS[0])))] == 2
    assert found["upstream_rq_seconds_bucket", (cluster, ("le", str(BUCKETS[3])))] == 3
    assert found["upstream_rq_seconds_bucket", (cluster, ("le", "+Inf"))] == 4
    assert found["upstream_rq_seconds_count", (cluster,)] == 4
    assert found["upstream_rq_seconds_sum", (cluster,)] == 99.5


def test_other_buckets_are_an_error():
    metrics = Metrics()
    metrics.add(1, Stats(0, (), (), ((SECONDS, counts(), 0.0),)))
    with pytest.raises(ValueError, match="3 buckets"):
        metrics.add(1, Stats(0, (), (), ((SECONDS, (1, 2, 3), 0.0),)))


def test_agent_metrics_have_names_types_and_help():
    metrics = Metrics()
    metrics.count("pillion_worker_restarts_total", 0)
    metrics.count("xds_update_rejected_total", type="cds")
    metrics.gauge("control_plane_connected_state", 1)
    text = metrics.render().decode()
    assert "# TYPE pillion_worker_restarts_total counter\npillion_worker_restarts_total 0.0" in text
    assert 'xds_update_rejected_total{type="cds"} 1.0' in text
    assert "control_plane_connected_state 1.0" in text
    assert "_created" not in text


def test_label_values_are_escaped():
    metrics = Metrics()
    metrics.count("downstream_cx_total", listener='a"b\\c\nd')
    assert samples(metrics)["downstream_cx_total", (("listener", 'a"b\\c\nd'),)] == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 10)), max_size=20))
def test_the_sum_is_the_sum(increments):
    metrics = Metrics()
    for pid, by in increments:
        metrics.add(pid, Stats(0, ((RQ, by),), (), ()))
    assert metrics.value("downstream_rq_total", **dict(RQ[1])) == sum(by for _, by in increments)
