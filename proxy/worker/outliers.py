"""Outlier detection on the request path: tells a cluster's detector what its endpoints do, keeps its clock, counts and
logs who is ejected."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from proxy.telemetry.counters import Counters

if TYPE_CHECKING:
    from proxy.cluster.ejection import Ejections
    from proxy.cluster.state import ClusterState, Endpoint

log = logging.getLogger("proxy.worker.outliers")

_SLACK = 0.01
"""Seconds that a timer of the loop may be early."""


class Outliers:
    """The detection of all clusters of a worker. A cluster has a timer only while there are requests to it, or an
    ejection time has yet to fall."""

    __slots__ = ("_counters", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._loop = loop
        self._counters = counters

    def answered(self, cluster: ClusterState, endpoint: Endpoint, status: int) -> None:
        """The endpoint answered a request with this status of HTTP."""
        ejections = cluster.outlier
        if ejections is None:
            return
        found = ejections.detector.answered(endpoint.health, status)
        if found:
            self._found(cluster, endpoint, found)
        if not ejections.sweeping:
            self._arm(cluster, ejections)

    def failed(self, cluster: ClusterState, endpoint: Endpoint, status: int) -> None:
        """The endpoint did not answer: 503, no connection or one that broke; 504, not in time; 502, not in HTTP."""
        ejections = cluster.outlier
        if ejections is None:
            return
        found = ejections.detector.failed(endpoint.health, status)
        if found:
            self._found(cluster, endpoint, found)
        if not ejections.sweeping:
            self._arm(cluster, ejections)

    def connected(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """A TCP connection was made to the endpoint, and its bytes are not looked at."""
        ejections = cluster.outlier
        if ejections is None:
            return
        ejections.detector.connected(endpoint.health)
        if not ejections.sweeping:
            self._arm(cluster, ejections)

    def readmit(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """A health check has passed: the endpoint need not wait for the end of its ejection."""
        if cluster.outlier is not None and cluster.outlier.readmit(cluster, endpoint):
            log.info("readmitted cluster=%s endpoint=%s: its health check passed", cluster.name, endpoint.text)

    def _found(self, cluster: ClusterState, endpoint: Endpoint, kinds: tuple[str, ...]) -> None:
        ejections = cluster.outlier
        assert ejections is not None
        now = monotonic()
        for kind in kinds:
            verdict = ejections.judge(cluster, endpoint, kind, now)
            if verdict == "gone":
                continue
            self._count("outlier_detection_ejections_detected_total", cluster, kind)
            if verdict == "overflow":
                slot = self._counters.slot("outlier_detection_ejections_overflow_total", cluster=cluster.name)
                self._counters.values[slot] += 1
            elif verdict == "ejected":
                self._count("outlier_detection_ejections_enforced_total", cluster, kind)
                seconds = endpoint.health.ejected_until - now
                log.warning(
                    "ejected cluster=%s endpoint=%s detector=%s seconds=%.1f",
                    cluster.name,
                    endpoint.text,
                    kind,
                    seconds,
                )
                self._loop.call_later(seconds + _SLACK, self._restore, cluster)

    def _count(self, name: str, cluster: ClusterState, kind: str) -> None:
        self._counters.values[self._counters.slot(name, cluster=cluster.name, detector=kind)] += 1

    def _restore(self, cluster: ClusterState) -> None:
        if cluster.outlier is not None:
            for endpoint in cluster.outlier.restore(cluster, monotonic()):
                log.info("back in service cluster=%s endpoint=%s", cluster.name, endpoint.text)

    def _arm(self, cluster: ClusterState, ejections: Ejections) -> None:
        ejections.sweeping = True
        self._loop.call_later(ejections.config.interval, self._sweep, cluster, ejections)

    def _sweep(self, cluster: ClusterState, ejections: Ejections) -> None:
        if cluster.outlier is not ejections:  # outlier_detection was taken away meanwhile
            return
        for endpoint, kind in ejections.sweep(cluster):
            self._found(cluster, endpoint, (kind,))
        if ejections.sweeping:
            self._arm(cluster, ejections)
