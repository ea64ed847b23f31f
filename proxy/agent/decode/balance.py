"""How a cluster's requests are spread over its endpoints (lb_policy and its options in envoy.config.cluster.v3)."""

from __future__ import annotations

from typing import Any

from proxy.agent.decode.reader import Reader
from proxy.config.balance import LbPolicy, LoadBalancing

_POLICIES: dict[str, LbPolicy] = {
    "ROUND_ROBIN": "ROUND_ROBIN",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "RANDOM": "RANDOM",
    "RING_HASH": "RING_HASH",
    "MAGLEV": "MAGLEV",
}
_CONFIGS: dict[str, LbPolicy] = {
    "ring_hash_lb_config": "RING_HASH",
    "maglev_lb_config": "MAGLEV",
}
_HASH_FUNCTIONS: dict[str, Any] = {"XX_HASH": "XX_HASH", "MURMUR_HASH_2": "MURMUR_HASH_2"}
_MOST_POINTS = 8 * 1024 * 1024  # the proto's own validation rules
_LARGEST_TABLE = 5_000_011


def read_balancing(reader: Reader, *, names: bool) -> tuple[LbPolicy, LoadBalancing]:
    """The lb_policy of a Cluster, and all of its options. `names`: its endpoints come from DNS."""
    policy = reader.enum("lb_policy", _POLICIES)
    options: dict[str, Any] = {}
    for name, owner in _CONFIGS.items():
        inner = reader.child(name)
        if inner is None:
            continue
        if owner != policy:
            reader.error(f"belongs to lb_policy {owner}, not {policy}", name)
        options |= _ring(inner) if owner == "RING_HASH" else _maglev(inner)
    common = reader.child("common_lb_config")
    if common is not None:
        options |= _common(common, names)
    return policy, LoadBalancing(**options)


def _ring(reader: Reader) -> dict[str, Any]:
    smallest = reader.integer("minimum_ring_size", 1024, 1, _MOST_POINTS)
    largest = reader.integer("maximum_ring_size", _MOST_POINTS, 1, _MOST_POINTS)
    if smallest > largest:
        reader.error(f"is more than maximum_ring_size ({smallest} > {largest})", "minimum_ring_size")
    function = reader.enum("hash_function", _HASH_FUNCTIONS)
    return {"minimum_ring_size": smallest, "maximum_ring_size": largest, "hash_function": function}


def _maglev(reader: Reader) -> dict[str, Any]:
    size = reader.integer("table_size", 65537, 2, _LARGEST_TABLE)
    if any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
        reader.error(f"must be a prime number, not {size}", "table_size")
    return {"maglev_table_size": size}


def _common(reader: Reader, names: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    hashing = reader.child("consistent_hashing_lb_config")
    if hashing is not None:
        found["use_hostname_for_hashing"] = hashing.value("use_hostname_for_hashing")
        if found["use_hostname_for_hashing"] and not names:
            hashing.error("is for a cluster of type STRICT_DNS", "use_hostname_for_hashing")
    return found
