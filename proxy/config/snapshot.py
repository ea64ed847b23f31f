"""A snapshot: the complete configuration at one instant; and the delta between two of them.

The agent builds snapshots, keeps the last good one, and sends each worker the delta to the next. A worker applies
the delta to the snapshot it has, so both sides hold the same value without sending 5,000 endpoints for one change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from proxy.config.cluster import Cluster, ClusterHealth, LoadAssignment
from proxy.config.listener import Listener
from proxy.config.model import DownstreamTls, TlsCertificate, TrustBundle, UpstreamTls
from proxy.config.route import RouteConfiguration


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every resource by name. The mappings are never mutated after construction."""

    listeners: Mapping[str, Listener] = field(default_factory=dict)
    routes: Mapping[str, RouteConfiguration] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    assignments: Mapping[str, LoadAssignment] = field(default_factory=dict)
    certificates: Mapping[str, TlsCertificate] = field(default_factory=dict)
    bundles: Mapping[str, TrustBundle] = field(default_factory=dict)
    # By cluster, of those with active health checks. The agent finds it out; no resource says it.
    health: Mapping[str, ClusterHealth] = field(default_factory=dict)


KINDS: tuple[str, ...] = tuple(f.name for f in fields(Snapshot))


@dataclass(frozen=True, slots=True)
class Delta:
    """What changes from one snapshot to the next, by kind (a field name of Snapshot), then by resource name."""

    changed: Mapping[str, Mapping[str, object]]
    removed: Mapping[str, tuple[str, ...]]

    def __bool__(self) -> bool:
        return any(self.changed.values()) or any(self.removed.values())


def diff(old: Snapshot, new: Snapshot) -> Delta:
    """The delta that turns `old` into `new`; equal resources are left out, whatever their identity."""
    changed: dict[str, dict[str, object]] = {}
    removed: dict[str, tuple[str, ...]] = {}
    for kind in KINDS:
        before: Mapping[str, object] = getattr(old, kind)
        after: Mapping[str, object] = getattr(new, kind)
        if before is after:
            continue
        put = {name: value for name, value in after.items() if before.get(name) != value}
        gone = tuple(name for name in before if name not in after)
        if put:
            changed[kind] = put
        if gone:
            removed[kind] = gone
    return Delta(changed, removed)


def apply(old: Snapshot, delta: Delta) -> Snapshot:
    """The inverse of diff: apply(old, diff(old, new)) == new."""
    values: dict[str, Mapping[str, object]] = {}
    for kind in KINDS:
        current: Mapping[str, object] = getattr(old, kind)
        put = delta.changed.get(kind)
        gone = delta.removed.get(kind)
        if put or gone:
            merged = {**current, **(put or {})}
            for name in gone or ():
                merged.pop(name, None)
            current = merged
        values[kind] = current
    return Snapshot(**values)  # type: ignore[arg-type]  # KINDS are exactly the fields


def consistent(snapshot: Snapshot) -> list[str]:
    """Every dangling reference, as a sentence that names both ends; empty when the snapshot is consistent.

    go-control-plane's Snapshot.Consistent(), over all kinds.
    """
    return list(_dangling(snapshot))


def _dangling(s: Snapshot) -> Iterator[str]:
    for listener in s.listeners.values():
        where = f"listener {listener.name!r}"
        http, tcp = listener.filter_chain.http, listener.filter_chain.tcp
        if http is not None and http.rds is not None and http.rds not in s.routes:
            yield f"{where} refers to route configuration {http.rds!r}, which does not exist"
        if http is not None and http.route_config is not None:
            yield from _dangling_clusters(s, where, http.route_config.clusters())
        if tcp is not None:
            yield from _dangling_clusters(s, where, frozenset(cluster.name for cluster in tcp.clusters))
        if listener.filter_chain.tls is not None:
            yield from _dangling_tls(s, where, listener.filter_chain.tls)
    for routes in s.routes.values():
        yield from _dangling_clusters(s, f"route configuration {routes.name!r}", routes.clusters())
    for cluster in s.clusters.values():
        where = f"cluster {cluster.name!r}"
        if cluster.load_assignment not in s.assignments:
            yield f"{where} refers to load assignment {cluster.load_assignment!r}, which does not exist"
        if cluster.tls is not None:
            yield from _dangling_tls(s, where, cluster.tls)


def _dangling_clusters(s: Snapshot, where: str, names: frozenset[str]) -> Iterator[str]:
    for name in sorted(names - s.clusters.keys()):
        yield f"{where} refers to cluster {name!r}, which does not exist"


def _dangling_tls(s: Snapshot, where: str, tls: DownstreamTls | UpstreamTls) -> Iterator[str]:
    if tls.certificate is not None and tls.certificate not in s.certificates:
        yield f"{where} refers to certificate {tls.certificate!r}, which does not exist"
    if tls.validation is not None and tls.validation.trusted_ca not in s.bundles:
        yield f"{where} refers to trust bundle {tls.validation.trusted_ca!r}, which does not exist"
