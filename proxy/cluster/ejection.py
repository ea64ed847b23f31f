"""Outlier detection at work on one cluster: who is out of service, and since when a round of comparing is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.config.cluster import OutlierDetection
from proxy.policy import outlier

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint


class Ejections:
    """Of one cluster. `out`: the endpoints that are ejected; `sweeping`: a sweep is due at the end of the interval.

    The methods take the cluster that this belongs to, and swap its picker when who serves has changed."""

    __slots__ = ("config", "detector", "out", "sweeping")

    def __init__(self, config: OutlierDetection) -> None:
        self.out: dict[Endpoint, None] = {}
        self.sweeping = False
        self.configure(config)

    def configure(self, config: OutlierDetection) -> None:
        """Judge by this from now on; what was counted, and who is out, stays."""
        self.config = config
        self.detector = outlier.Detector(config)

    def judge(self, cluster: ClusterState, endpoint: Endpoint, kind: str, now: float) -> str:
        """Detector `kind` has found the endpoint: "ejected", or why not: "gone", "overflow" (as many are out as may be)
        or "not enforced"."""
        if endpoint.removed or endpoint.health.ejected_until:
            return "gone"
        endpoints = cluster.endpoints.values()
        serving = sum([1 for e in endpoints if e.serving])
        if not endpoint.serving:
            serving += 1  # without it as many are left as there are
        if not self.detector.may_eject(len(self.out), len(endpoints), serving):
            return "overflow"
        if not self.detector.enforces(kind, cluster.draw):
            return "not enforced"
        self.detector.eject(endpoint.health, now, cluster.draw)
        self.out[endpoint] = None
        cluster.rebuild()
        return "ejected"

    def sweep(self, cluster: ClusterState) -> list[tuple[Endpoint, str]]:
        """An interval is over: which endpoints are worse than the others, and by which detector. `sweeping` is False
        afterwards if there was nothing to do, and the next request begins a new interval."""
        endpoints = {id(e.health): e for e in cluster.endpoints.values()}
        hosts = [e.health for e in cluster.endpoints.values()]
        self.sweeping = any(health.requests or health.local_requests or health.backoff for health in hosts)
        return [(endpoints[id(health)], kind) for health, kind in self.detector.sweep(hosts)]

    def restore(self, cluster: ClusterState, now: float) -> list[Endpoint]:
        """Bring back the endpoints whose time is over, and return them."""
        back = [endpoint for endpoint in self.out if endpoint.health.ejected_until <= now]
        for endpoint in back:
            del self.out[endpoint]
            outlier.restore(endpoint.health)
        if back:
            cluster.rebuild()
        return back

    def readmit(self, cluster: ClusterState, endpoint: Endpoint) -> bool:
        """Bring back one endpoint before its time, if it is out."""
        if endpoint not in self.out:
            return False
        del self.out[endpoint]
        outlier.restore(endpoint.health)
        cluster.rebuild()
        return True
