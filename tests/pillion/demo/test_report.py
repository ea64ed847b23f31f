"""The report's arithmetic, on metrics as a sidecar writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion.demo import report

CART = "spiffe://pillion.local/service/cart"

METRICS = """\
# TYPE upstream_rq_total counter
upstream_rq_total{cluster="cart",response_code_class="2xx"} 98
upstream_rq_total{cluster="cart",response_code_class="4xx"} 1
upstream_rq_total{cluster="cart",response_code_class="5xx"} 1
upstream_rq_total{cluster="inbound",response_code_class="2xx"} 7
# TYPE upstream_cx_total counter
upstream_cx_total{cluster="cart"} 2
# TYPE upstream_cx_connect_fail_total counter
upstream_cx_connect_fail_total{cluster="cart"} 1
# TYPE upstream_tls_handshake_total counter
upstream_tls_handshake_total{cluster="cart",peer="spiffe://pillion.local/service/cart"} 2
# TYPE upstream_rq_seconds histogram
upstream_rq_seconds_bucket{cluster="cart",le="0.001"} 50
upstream_rq_seconds_bucket{cluster="cart",le="0.002"} 100
upstream_rq_seconds_bucket{cluster="cart",le="+Inf"} 100
upstream_rq_seconds_sum{cluster="cart"} 0.1
upstream_rq_seconds_count{cluster="cart"} 100
# TYPE downstream_rq_total counter
downstream_rq_total{listener="inbound",response_code_class="2xx"} 7
downstream_rq_total{listener="outbound",response_code_class="2xx"} 100
# TYPE certificate_expiration_timestamp_seconds gauge
certificate_expiration_timestamp_seconds 5000
# TYPE control_plane_connected_state gauge
control_plane_connected_state 1
"""


def test_a_scrape_becomes_an_edge() -> None:
    sample = report.parse(METRICS)
    assert sample.connected
    assert sample.inbound.requests == 7

    (edge,) = report.edges(4000, 10, "pillion.local", [("storefront", sample, None)])

    assert (edge.source, edge.destination, edge.requests, edge.rps) == ("storefront", "cart", 100, 10.0)
    assert edge.success == pytest.approx(0.99)
    assert (edge.p50_ms, edge.p99_ms) == (1.0, 1.98)
    assert (edge.mtls, edge.peer, edge.certificate_seconds_left) == (True, CART, 1000)


def test_a_grpc_call_fails_by_its_status() -> None:
    """The head of each said 200. NOT_FOUND (5) is an answer."""
    calls = [("cart", 0, 90), ("cart", 5, 4), ("cart", 14, 2), ("cart", 2, 1), ("inbound", 13, 2), ("inbound", 0, 5)]
    lines = [f'upstream_rq_grpc_total{{cluster="{name}",grpc_status="{code}"}} {n}\n' for name, code, n in calls]
    first = report.parse(METRICS)
    last = report.parse(METRICS + "# TYPE upstream_rq_grpc_total counter\n" + "".join(lines))

    (edge,) = report.edges(0, 1, "pillion.local", [("web", last, None), ("web", first, None)])

    assert edge.success == pytest.approx((99 + 99 - 3) / 200)
    assert last.inbound.success == pytest.approx(5 / 7)
    last.upstreams["cart"].figures.by_class["2xx"] += 2
    assert last.upstreams["cart"].figures.minus(first.upstreams["cart"].figures).grpc_faults == 3


def test_a_period_is_the_difference_of_two_samples() -> None:
    first, last = report.parse(METRICS), report.parse(METRICS.replace('"2xx"} 98', '"2xx"} 198'))

    (edge,) = report.edges(0, 5, "pillion.local", [("storefront", last, first)])

    assert (edge.requests, edge.rps, edge.success) == (100, 20.0, 1.0)


def test_counters_that_started_over_count_from_zero() -> None:
    before, after = report.Figures({"2xx": 100}), report.Figures({"2xx": 4})
    assert after.minus(before).requests == 4


def test_instances_of_one_source_are_added_up() -> None:
    sample = report.parse(METRICS)
    (edge,) = report.edges(0, 1, "pillion.local", [("web", sample, None), ("web", sample, None)])
    assert (edge.requests, edge.p50_ms, edge.mtls) == (200, 1.0, True)


def test_an_edge_without_requests_in_the_period_is_left_out() -> None:
    sample = report.parse(METRICS)
    assert report.edges(0, 1, "pillion.local", [("storefront", sample, sample)]) == []


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        (report.Upstream(connections=2, verified={CART: 2}), True),
        (report.Upstream(connections=2, verified={CART: 1}), False),  # one connection without a handshake
        (report.Upstream(connections=1), False),
        (report.Upstream(connections=2, verified={CART: 1, "": 1}), False),  # a handshake that verified nobody
        (report.Upstream(), False),
        (
            report.Upstream(connections=2, verified={CART: 1, "spiffe://pillion.local/service/other": 1}),
            False,
        ),
        (report.Upstream(connections=1, verified={"spiffe://elsewhere/service/cart": 1}), False),
    ],
)
def test_mtls_needs_every_connection_verified(upstream: report.Upstream, expected: bool) -> None:
    assert report.verified(upstream, CART) is expected


def test_a_version_of_a_service_has_the_identity_of_the_service() -> None:
    sample = report.parse(METRICS.replace('cluster="cart"', 'cluster="cart|v2"'))
    (edge,) = report.edges(0, 1, "pillion.local", [("storefront", sample, None)])
    assert (edge.destination, edge.mtls) == ("cart|v2", True)


@pytest.mark.parametrize(
    ("present", "mtls"),
    [([("a", "b"), ("b", "c")], True), ([("a", "b")], False), ([], False)],
)
def test_the_summary_is_mtls_only_with_every_expected_edge(present: list[tuple[str, str]], mtls: bool) -> None:
    found = [report.Edge(a, b, 1, 1.0, 1.0, 1.0, 1.0, True, "x", 1) for a, b in present]
    answer = report.summary(1, 0, 1.0, [], found, [("a", "b"), ("b", "c")], {"calls": 2})
    assert answer["mtls"] is mtls
    assert answer["grpc"] == {"calls": 2}
    assert [(edge["source"], edge["destination"]) for edge in answer["edges"]] == present


def test_one_edge_without_mtls_spoils_the_summary() -> None:
    found = [report.Edge("a", "b", 1, 1.0, 1.0, 1.0, 1.0, False, None, None)]
    assert report.summary(1, 0, 1.0, [], found, [], {})["mtls"] is False


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(counts: list[int], q: float) -> None:
    bounds = [0.001 * 2**i for i in range(len(counts))] + [math.inf]
    running, buckets = 0, {}
    for bound, count in zip(bounds, [*counts, 0], strict=True):
        running += count
        buckets[bound] = float(running)
    value = report.quantile(buckets, q)
    if not running:
        assert value is None
        return
    assert value is not None
    upper = next(b for b in bounds if buckets[b] >= q * running and buckets[b] > 0)
    lower = max((b for b in bounds if b < upper), default=0.0)
    assert lower <= value <= upper * (1 + 1e-9)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert report.quantile({0.5: 1, math.inf: 100}, 0.99) == 0.5
