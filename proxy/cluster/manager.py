"""All clusters of a worker: applies a snapshot by difference, so that what did not change is not touched."""

from __future__ import annotations

from collections.abc import Callable

from proxy.cluster.state import ClusterState, Endpoint
from proxy.config.cluster import LoadAssignment
from proxy.config.snapshot import Delta, Snapshot
from proxy.telemetry.counters import Counters


class ClusterManager:
    """Clusters by name. `apply` is all there is to change them."""

    __slots__ = ("_counters", "_draw", "clusters")

    def __init__(self, counters: Counters, draw: Callable[[], float]) -> None:
        self._counters = counters
        self._draw = draw
        self.clusters: dict[str, ClusterState] = {}

    def apply(self, snapshot: Snapshot, delta: Delta) -> list[Endpoint]:
        """Bring the clusters in line with `snapshot`, which `delta` led to. Returns the endpoints that are gone."""
        gone: list[Endpoint] = []
        changed = delta.changed.get("clusters", {})
        assignments = delta.changed.get("assignments", {})
        for name in changed:
            config = snapshot.clusters[name]
            state = self.clusters.get(name)
            if state is None:
                state = self.clusters[name] = ClusterState(config, self._counters, self._draw)
                renamed = True
            else:
                renamed = state.config.load_assignment != config.load_assignment
                state.configure(config)
            if renamed and config.load_assignment not in assignments:
                gone += state.assign(snapshot.assignments[config.load_assignment])
        if assignments:
            for state in self.clusters.values():
                assignment = assignments.get(state.config.load_assignment)
                if isinstance(assignment, LoadAssignment):
                    gone += state.assign(assignment)
        for name in delta.removed.get("clusters", ()):
            removed = self.clusters.pop(name, None)
            if removed is not None:
                self._counters.drop_gauges(cluster=name)
                gone += removed.assign(LoadAssignment(name, ()))
        return gone
