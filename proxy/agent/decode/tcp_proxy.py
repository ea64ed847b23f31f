"""TcpProxy (envoy.extensions.filters.network.tcp_proxy.v3)."""

from __future__ import annotations

from proxy.agent.decode.access_log import decode_access_log
from proxy.agent.decode.reader import Reader
from proxy.config.listener import TcpProxy
from proxy.config.route import WeightedCluster

_MAX_WEIGHT = 2**32 - 1


def read_tcp_proxy(reader: Reader) -> TcpProxy:
    """The one terminal network filter of a listener that relays bytes."""
    logs = (decode_access_log(r) for r in reader.children("access_log"))
    return TcpProxy(
        stat_prefix=reader.required("stat_prefix"),
        clusters=_clusters(reader),
        access_logs=tuple(log for log in logs if log is not None),
        # Envoy: "If not set, the default idle timeout is 1 hour. If set to 0s, the timeout will be disabled."
        idle_timeout=reader.seconds("idle_timeout", 3600.0),
        max_connect_attempts=reader.integer("max_connect_attempts", 1, 1, _MAX_WEIGHT),
        max_downstream_connection_duration=reader.seconds("max_downstream_connection_duration", 0.0),
    )


def _clusters(reader: Reader) -> tuple[WeightedCluster, ...]:
    kind = reader.one_of("cluster_specifier", "cluster", "weighted_clusters")
    if kind == "cluster":
        return (WeightedCluster(reader.required("cluster")),)
    if kind == "weighted_clusters" and (inner := reader.child("weighted_clusters")):
        found: list[WeightedCluster] = []
        for entry in inner.children("clusters"):
            weight: int = entry.value("weight")
            if weight < 1:  # the proto's own validation rule
                entry.error("must be at least 1", "weight")
            found.append(WeightedCluster(entry.required("name"), weight))
        if not found:
            inner.error("needs at least one cluster", "clusters")
        elif sum(cluster.weight for cluster in found) > _MAX_WEIGHT:
            inner.error(f"the weights must add up to at most {_MAX_WEIGHT}", "clusters")
        return tuple(found)
    return ()
