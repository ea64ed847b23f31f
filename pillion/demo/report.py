"""What the sidecars' own metrics say, per edge (a service → a cluster it calls) and per instance; pure.

A Sample holds one scrape of one sidecar. Counters of a sidecar only grow (the agent keeps them across
restarts of its workers), so the figures of a period are the difference of two samples; one that was restarted
starts at zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Buckets = dict[float, float]
"""Upper bound in seconds → cumulative count, +Inf included."""

GRPC_FAULTS = frozenset({"2", "4", "12", "13", "14", "15"})
"""The statuses that stand for a fault of the server's, as 5xx does in HTTP (OpenTelemetry's conventions for gRPC):
UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS."""


@dataclass(slots=True)
class Figures:
    """Requests and their durations over a period."""

    by_class: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: Buckets = field(default_factory=lambda: defaultdict(float))
    # gRPC calls with one of GRPC_FAULTS; in by_class they are 2xx.
    grpc_faults: float = 0

    @property
    def requests(self) -> int:
        return round(sum(self.by_class.values()))

    @property
    def success(self) -> float | None:
        """The share that was answered with a status below 500 and no fault of gRPC's; None without requests."""
        total = sum(self.by_class.values())
        if not total:
            return None
        good = sum(count for name, count in self.by_class.items() if name in ("1xx", "2xx", "3xx", "4xx"))
        return (good - self.grpc_faults) / total

    def quantile_ms(self, q: float) -> float | None:
        """Milliseconds; None without requests."""
        seconds = quantile(self.buckets, q)
        return None if seconds is None else round(seconds * 1000, 3)

    def minus(self, earlier: Figures) -> Figures:
        """What was added since `earlier`; everything, when the counters have started over since."""
        if self.requests < earlier.requests:
            return self
        return Figures(
            _minus(self.by_class, earlier.by_class),
            _minus(self.buckets, earlier.buckets),
            self.grpc_faults - earlier.grpc_faults,
        )

    def add(self, other: Figures) -> None:
        """Add the figures of another sidecar."""
        for name, count in other.by_class.items():
            self.by_class[name] += count
        for bound, count in other.buckets.items():
            self.buckets[bound] += count
        self.grpc_faults += other.grpc_faults


@dataclass(slots=True)
class Upstream:
    """What one sidecar knows of one cluster."""

    figures: Figures = field(default_factory=Figures)
    # Those that were made; one whose connect or handshake failed is not among them.
    connections: float = 0
    # Handshakes by the peer's verified identity, "" where nothing was verified.
    verified: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(slots=True)
class Sample:
    """One scrape of one sidecar."""

    upstreams: dict[str, Upstream] = field(default_factory=lambda: defaultdict(Upstream))
    inbound: Figures = field(default_factory=Figures)
    certificate_expires: float | None = None
    connected: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """One line of the report; `destination` is the cluster's name (`cart`, or `cart|v2` for one version)."""

    source: str
    destination: str
    requests: int
    rps: float
    success: float | None
    p50_ms: float | None
    p99_ms: float | None
    mtls: bool
    peer: str | None
    certificate_seconds_left: float | None


def parse(text: str) -> Sample:
    """A sidecar's /metrics. Names that the report does not need are passed over."""
    sample = Sample()
    for family in text_string_to_metric_families(text):
        for metric in family.samples:
            _take(sample, metric.name, metric.labels, metric.value)
    return sample


def _take(sample: Sample, name: str, labels: Mapping[str, str], value: float) -> None:
    cluster = labels.get("cluster", "")
    inbound = labels.get("listener") == "inbound"
    if name == "upstream_rq_total":
        sample.upstreams[cluster].figures.by_class[labels["response_code_class"]] += value
    elif name == "upstream_rq_seconds_bucket":
        sample.upstreams[cluster].figures.buckets[float(labels["le"])] += value
    elif name == "upstream_rq_grpc_total" and labels["grpc_status"] in GRPC_FAULTS:
        sample.upstreams[cluster].figures.grpc_faults += value
        if cluster == "inbound":
            sample.inbound.grpc_faults += value
    elif name == "upstream_cx_total":
        sample.upstreams[cluster].connections += value
    elif name == "upstream_tls_handshake_total":
        sample.upstreams[cluster].verified[labels.get("peer", "")] += value
    elif name == "downstream_rq_total" and inbound:
        sample.inbound.by_class[labels["response_code_class"]] += value
    elif name == "downstream_rq_seconds_bucket" and inbound:
        sample.inbound.buckets[float(labels["le"])] += value
    elif name == "certificate_expiration_timestamp_seconds":
        known = sample.certificate_expires
        sample.certificate_expires = value if known is None else min(known, value)
    elif name == "control_plane_connected_state":
        sample.connected = value == 1


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """The q-quantile (0..1) by linear interpolation within its bucket, as PromQL's histogram_quantile;
    seconds.

    A quantile in the +Inf bucket is the highest finite bound. None when nothing was counted.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = q * buckets[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def edges(
    now: float,
    seconds: float,
    trust_domain: str,
    sidecars: Iterable[tuple[str, Sample, Sample | None]],
) -> list[Edge]:
    """One edge for each (source service, cluster) with requests between the two samples, sorted by name.

    `sidecars` yields (service, sample at the end, sample at the start or None); instances of one service are
    added up. `now` and certificate times are seconds of the epoch, `seconds` is the length of the period.
    """
    figures: dict[tuple[str, str], Figures] = defaultdict(Figures)
    upstreams: dict[tuple[str, str], list[Upstream]] = defaultdict(list)
    expires: dict[str, list[float]] = defaultdict(list)
    for service, last, first in sidecars:
        if last.certificate_expires is not None:
            expires[service].append(last.certificate_expires)
        for cluster, upstream in last.upstreams.items():
            if cluster == "inbound":
                continue
            start = first.upstreams.get(cluster) if first else None
            figures[service, cluster].add(upstream.figures.minus(start.figures if start else Figures()))
            upstreams[service, cluster].append(upstream)
    found = []
    for (service, cluster), total in sorted(figures.items()):
        if not total.requests:
            continue
        expected = f"spiffe://{trust_domain}/service/{cluster.partition('|')[0]}"
        found.append(
            Edge(
                source=service,
                destination=cluster,
                requests=total.requests,
                rps=round(total.requests / seconds, 2) if seconds > 0 else 0.0,
                success=total.success,
                p50_ms=total.quantile_ms(0.5),
                p99_ms=total.quantile_ms(0.99),
                mtls=all(verified(upstream, expected) for upstream in upstreams[service, cluster]),
                peer=", ".join(sorted({peer for u in upstreams[service, cluster] for peer in u.verified})) or None,
                certificate_seconds_left=round(min(expires[service]) - now) if expires[service] else None,
            )
        )
    return found


def verified(upstream: Upstream, expected: str) -> bool:
    """True when there were handshakes, all with the peer `expected`, and no connection was made without one."""
    handshakes = upstream.verified.get(expected, 0)
    if not handshakes or any(count for peer, count in upstream.verified.items() if peer != expected):
        return False
    return upstream.connections <= handshakes


def summary(
    requests: int,
    failures: int,
    seconds: float,
    services: Sequence[Mapping[str, Any]],
    found: Sequence[Edge],
    expected: Iterable[tuple[str, str]],
    grpc: Mapping[str, int],
) -> dict[str, Any]:
    """The JSON report. `mtls` needs every edge of `expected` (source, destination service) to be there,
    verified.
    """
    seen = {(edge.source, edge.destination.partition("|")[0]) for edge in found}
    return {
        "requests": requests,
        "failures": failures,
        "grpc": dict(grpc),
        "mtls": bool(found) and all(edge.mtls for edge in found) and set(expected) <= seen,
        "services": list(services),
        "edges": [
            {name: getattr(edge, name) for name in Edge.__dataclass_fields__}
            for edge in sorted(found, key=lambda edge: (edge.source, edge.destination))
        ],
        "duration_s": round(seconds, 3),
    }


def _minus(now: Mapping[Any, float], before: Mapping[Any, float]) -> dict[Any, float]:
    return defaultdict(float, {key: value - before.get(key, 0) for key, value in now.items()})
