"""All clusters of a worker: applies a snapshot by difference, so that what did not change is not touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.cluster.state import ClusterState, Endpoint, building
from proxy.config.cluster import ClusterHealth, LoadAssignment
from proxy.config.model import Address
from proxy.config.snapshot import Delta, Snapshot
from proxy.telemetry.counters import Counters

_UNCHECKED: Final = ClusterHealth("")


class ClusterManager:
    """Clusters by name. `prepare`, which can fail and changes nothing, then `apply`, which does not fail."""

    __slots__ = ("_counters", "_draw", "clusters")

    def __init__(self, counters: Counters, draw: Callable[[], float]) -> None:
        self._counters = counters
        self._draw = draw
        self.clusters: dict[str, ClusterState] = {}

    def prepare(self, snapshot: Snapshot) -> dict[str, ClusterState]:
        """All clusters of `snapshot`; new ones are not in service yet, and nothing of those that stay is changed.
        Raises LookupError or ValueError for what `apply` could not do."""
        clusters: dict[str, ClusterState] = {}
        for name, config in snapshot.clusters.items():
            if config.load_assignment not in snapshot.assignments:
                raise LookupError(f"cluster {name!r}: no load assignment {config.load_assignment!r}")
            known = self.clusters.get(name)
            if known is None:
                known = ClusterState(config, self._counters, self._draw)
            elif known.config is not config:
                building(config, self._draw)
            clusters[name] = known
        return clusters

    def apply(self, snapshot: Snapshot, delta: Delta, clusters: dict[str, ClusterState]) -> list[Endpoint]:
        """Take over what `prepare` gave for `snapshot`, which `delta` led to. Returns the endpoints that are gone."""
        gone: list[Endpoint] = []
        changed = delta.changed.get("clusters", {})
        assignments = delta.changed.get("assignments", {})
        health = {*delta.changed.get("health", ()), *delta.removed.get("health", ())}
        before, self.clusters = self.clusters, clusters
        for name, state in before.items():
            if name not in clusters:
                self._counters.drop_gauges(cluster=name)
                gone += state.assign(LoadAssignment(name, ()))
        for name, state in clusters.items():
            config = snapshot.clusters[name]
            fresh = name not in before
            stale = fresh
            if fresh:
                state.enter(self._counters)
            elif name in changed:
                stale = state.config.load_assignment != config.load_assignment
                if state.config.tls != config.tls:
                    # Connections that were secured otherwise are not used again: as in Envoy, the cluster starts anew.
                    gone += state.assign(LoadAssignment(name, ()))
                    stale = True
                state.configure(config)
            checked = snapshot.health.get(name, _UNCHECKED)
            if stale or config.load_assignment in assignments or checked.kept != state.kept:
                state.kept, state.failed = checked.kept, frozenset(checked.failed)
                assignment = snapshot.assignments[config.load_assignment]
                if checked.kept:
                    assignment = replace(assignment, endpoints=assignment.endpoints + checked.kept)
                gone += state.assign(assignment)
            elif name in health:
                state.check(frozenset(checked.failed))
        return gone

    def ejected(self) -> tuple[tuple[str, tuple[Address, ...]], ...]:
        """By cluster, whom outlier detection keeps out now; clusters where that is nobody are left out."""
        return tuple(
            [
                (name, tuple([endpoint.address for endpoint in state.outlier.out]))
                for name, state in self.clusters.items()
                if state.outlier is not None and state.outlier.out
            ]
        )
