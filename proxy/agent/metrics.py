"""The counters of every worker that ever lived, and the agent's own, in Prometheus' text format.

Counters and histograms add up: a worker's death takes nothing away. Gauges are the sum of what the live ones say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from proxy.worker.channel import MetricKey, Stats

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

AGENT = 0
"""Stands for the agent where gauges are kept by worker."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HELP = {
    "downstream_cx_total": "Connections accepted.",
    "downstream_cx_active": "Connections open now.",
    "downstream_cx_upgrades_total": "Connections that became a tunnel (WebSocket, CONNECT).",
    "downstream_cx_upgrades_active": "Connections that are a tunnel now.",
    "downstream_rq_total": "Requests answered, by class of the response code.",
    "downstream_rq_seconds": "From the request's first byte to the response's last.",
    "downstream_tls_handshake_total": "TLS handshakes completed with clients.",
    "downstream_tls_error_total": "TLS handshakes with clients that failed, by reason.",
    "upstream_cx_total": "Connections opened to endpoints.",
    "upstream_cx_active": "Connections open to endpoints now.",
    "upstream_cx_connect_fail_total": "Connections to endpoints that failed.",
    "upstream_rq_total": "Requests to a cluster, by class of the response code that the caller got.",
    "upstream_rq_active": "Requests under way to endpoints now.",
    "upstream_rq_seconds": "From the request's head to the response's end, tries included.",
    "upstream_rq_retry_total": "Tries after the first.",
    "upstream_tls_handshake_total": "TLS handshakes completed with endpoints, by verified peer.",
    "upstream_tls_error_total": "TLS handshakes with endpoints that failed, by reason.",
    "outlier_detection_ejections_enforced_total": "Endpoints ejected, by detector.",
    "outlier_detection_ejections_detected_total": "Endpoints that a detector found, ejected or not.",
    "outlier_detection_ejections_overflow_total": "Endpoints not ejected because as many as may be are out.",
    "outlier_detection_ejections_active": "Endpoints that are ejected now.",
    "fault_delays_injected_total": "Tries that a fault delayed.",
    "fault_aborts_injected_total": "Tries that a fault answered in the endpoint's place.",
    "fault_overflow_total": "Tries not delayed because as many as may be are.",
    "fault_active": "Tries that a fault delays now.",
    "http_local_rate_limit_ok_total": "Requests that a local rate limit admitted.",
    "http_local_rate_limit_rate_limited_total": "Requests that were too many for a local rate limit.",
    "http_local_rate_limit_enforced_total": "Requests that a local rate limit refused.",
    "health_check_attempt_total": "Active health checks begun.",
    "health_check_success_total": "Active health checks that passed.",
    "health_check_failure_total": "Active health checks that failed.",
    "health_check_network_failure_total": "Active health checks that failed without an answer.",
    "health_check_healthy": "Endpoints that active health checks find healthy now.",
    "response_flags_total": "Requests by response flag (listed in docs/metrics.md).",
    "pillion_worker_restarts_total": "Workers that died and were replaced.",
    "control_plane_connected_state": "1 while the xDS stream is up.",
    "certificate_expiration_timestamp_seconds": "When the certificate in use expires.",
    "xds_update_success_total": "xDS responses accepted, by type.",
    "xds_update_rejected_total": "xDS responses refused, by type.",
}

_V = TypeVar("_V")


class Metrics:
    """What is known now. The agent adds to it; each scrape renders it."""

    def __init__(self) -> None:
        self._counters: dict[MetricKey, int] = {}
        self._gauges: dict[int, dict[MetricKey, float]] = {AGENT: {}}
        self._histograms: dict[MetricKey, tuple[list[int], float]] = {}

    def add(self, pid: int, stats: Stats) -> None:
        """Take a worker's increments."""
        for key, value in stats.counters:
            self._counters[key] = self._counters.get(key, 0) + value
        if stats.gauges:
            self._gauges.setdefault(pid, {}).update(stats.gauges)
        for key, counts, total in stats.histograms:
            known, sum_ = self._histograms.get(key, ([0] * len(counts), 0.0))
            # zip would hide a worker with other buckets.
            if len(known) != len(counts):
                raise ValueError(f"{key[0]}: {len(counts)} buckets, not {len(known)}")
            self._histograms[key] = ([a + b for a, b in zip(known, counts, strict=True)], sum_ + total)

    def gone(self, pid: int) -> None:
        """A worker is no more: what it had open is closed."""
        self._gauges.pop(pid, None)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to one of the agent's own counters; by=0 makes it known."""
        key = (name, tuple(sorted(labels.items())))
        self._counters[key] = self._counters.get(key, 0) + by

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set one of the agent's own gauges."""
        self._gauges[AGENT][name, tuple(sorted(labels.items()))] = value

    def value(self, name: str, **labels: str) -> int:
        """A counter's value, 0 if it never counted."""
        return self._counters.get((name, tuple(sorted(labels.items()))), 0)

    def render(self) -> bytes:
        """The text that Prometheus scrapes (CONTENT_TYPE)."""
        from prometheus_client.exposition import generate_latest
        from prometheus_client.registry import Collector, CollectorRegistry

        collect_all = self._families

        class All(Collector):
            def collect(self) -> Iterable[Metric]:
                return collect_all()

            def describe(self) -> Iterable[Metric]:
                return ()

        registry = CollectorRegistry(auto_describe=False)
        registry.register(All())
        return generate_latest(registry)

    def _families(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        from proxy.telemetry.counters import BUCKETS

        for name, help_, labels, rows in _grouped(self._counters.items()):
            counter = CounterMetricFamily(name, help_, labels=labels)
            for values, value in rows:
                counter.add_metric(values, value)
            yield counter
        sums: dict[MetricKey, float] = {}
        for gauges in self._gauges.values():
            for key, gauge_value in gauges.items():
                sums[key] = sums.get(key, 0.0) + gauge_value
        for name, help_, labels, sum_rows in _grouped(sums.items()):
            gauge = GaugeMetricFamily(name, help_, labels=labels)
            for values, sum_value in sum_rows:
                gauge.add_metric(values, sum_value)
            yield gauge
        bounds = [*(repr(bound) for bound in BUCKETS), "+Inf"]
        for name, help_, labels, histogram_rows in _grouped(self._histograms.items()):
            histogram = HistogramMetricFamily(name, help_, labels=labels)
            for values, (counts, total) in histogram_rows:
                histogram.add_metric(values, list(zip(bounds, _cumulative(counts), strict=True)), total)
            yield histogram


def _grouped(
    items: Iterable[tuple[MetricKey, _V]],
) -> Iterator[tuple[str, str, list[str], list[tuple[list[str], _V]]]]:
    """(name, help, label names, rows) by metric name; a label that only some rows have is empty in the others."""
    by_name: dict[str, list[tuple[dict[str, str], _V]]] = {}
    for (name, pairs), value in items:
        by_name.setdefault(name, []).append((dict(pairs), value))
    for name, rows in sorted(by_name.items()):
        labels = sorted({label for pairs, _ in rows for label in pairs})
        values = [([pairs.get(label, "") for label in labels], value) for pairs, value in rows]
        yield name, HELP.get(name, name), labels, sorted(values, key=lambda row: row[0])


def _cumulative(counts: list[int]) -> list[int]:
    total = 0
    return [total := total + count for count in counts]
