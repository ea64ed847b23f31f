"""What /clusters says of the health of endpoints, in Envoy's words."""

from __future__ import annotations

from proxy.agent import dump
from proxy.config.cluster import Cluster, ClusterHealth, Endpoint, LoadAssignment
from proxy.config.model import Address
from proxy.config.snapshot import Snapshot

A, B, C, D, E = (Address("127.0.0.1", port) for port in (1, 2, 3, 4, 5))
SNAPSHOT = Snapshot(
    clusters={"app": Cluster("app", "EDS", "app")},
    assignments={
        "app": LoadAssignment(
            "app", (Endpoint(A, 2), Endpoint(B, healthy=False), Endpoint(C), Endpoint(E, healthy=False, degraded=True))
        )
    },
    health={"app": ClusterHealth("app", (A, B), (B,), (Endpoint(D),))},
)
EJECTED = {"app": frozenset((A,)), "other": frozenset((C,))}


def test_flags_in_text() -> None:
    lines = [line.split("::")[1:] for line in dump.clusters_text(SNAPSHOT, EJECTED).splitlines()]
    assert {line[0]: line[2] for line in lines if line[1] == "health_flags"} == {
        "127.0.0.1:1": "/failed_active_hc/failed_outlier_check",
        "127.0.0.1:2": "/failed_active_hc/failed_eds_health/pending_active_hc",
        "127.0.0.1:3": "healthy",
        "127.0.0.1:5": "/degraded_eds_health",
        "127.0.0.1:4": "/pending_dynamic_removal",
    }


def test_flags_in_json() -> None:
    (cluster,) = dump.clusters_json(SNAPSHOT, EJECTED)["cluster_statuses"]
    assert [host["health_status"] for host in cluster["host_statuses"]] == [
        {"eds_health_status": "HEALTHY", "failed_active_health_check": True, "failed_outlier_check": True},
        {"eds_health_status": "UNHEALTHY", "failed_active_health_check": True, "pending_active_hc": True},
        {"eds_health_status": "HEALTHY"},
        {"eds_health_status": "DEGRADED"},
        {"eds_health_status": "HEALTHY", "pending_dynamic_removal": True},
    ]
