"""How a cluster's requests are spread over its endpoints (lb_policy and its options in envoy.config.cluster.v3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from proxy.agent.decode.lb_metadata import struct_metadata
from proxy.agent.decode.reader import Reader
from proxy.config.balance import LbPolicy, LoadBalancing, Metadata, SlowStart, Subsets, SubsetSelector

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
    "least_request_lb_config": "LEAST_REQUEST",
    "round_robin_lb_config": "ROUND_ROBIN",
}
_FALLBACKS: dict[str, Any] = {name: name for name in ("NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET")}
_SELECTOR_FALLBACKS: dict[str, Any] = {**_FALLBACKS, "NOT_DEFINED": "NOT_DEFINED", "KEYS_SUBSET": "KEYS_SUBSET"}
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
        options |= _READERS[owner](inner)
    common = reader.child("common_lb_config")
    if common is not None:
        options |= _common(common, names)
    subsets = reader.child("lb_subset_config")
    if subsets is not None:
        options["subsets"] = _subsets(subsets)
    if reader.has("metadata"):
        policy, ours = _of_our_own(reader, policy)
        options |= ours
    return policy, LoadBalancing(**options)


def _of_our_own(reader: Reader, policy: LbPolicy) -> tuple[LbPolicy, dict[str, Any]]:
    """What xDS has no words for, in filter_metadata["pillion"]: lb_policy and peak_ewma. Others use the lb_policy."""
    metadata = reader.opaque("metadata").filter_metadata
    fields = json_format.MessageToDict(metadata["pillion"]) if "pillion" in metadata else {}
    path = 'metadata.filter_metadata["pillion"]'
    for name in sorted(fields.keys() - {"lb_policy", "peak_ewma"}):
        reader.error("is not known; lb_policy and peak_ewma are", f"{path}.{name}")
    wanted, ewma = fields.get("lb_policy"), fields.get("peak_ewma")
    if wanted not in (None, "PEAK_EWMA"):
        reader.error(f"{wanted!r} is not supported, only PEAK_EWMA", f"{path}.lb_policy")
    elif wanted is not None and policy in ("RING_HASH", "MAGLEV"):
        reader.error(f"cannot stand in place of {policy}", f"{path}.lb_policy")
    found: dict[str, Any] = {}
    if ewma is not None and (wanted is None or not isinstance(ewma, dict)):
        reader.error("must be an object, and lb_policy PEAK_EWMA", f"{path}.peak_ewma")
    elif ewma is not None:
        for name, value in ewma.items():
            seconds = _seconds(value) if name in ("decay_time", "default_rtt") else None
            if seconds is None:
                reader.error("must be decay_time or default_rtt, as in 0.5s", f"{path}.peak_ewma.{name}")
            else:
                found[f"ewma_{name}"] = seconds
    return ("PEAK_EWMA" if wanted is not None else policy), found


def _seconds(value: Any) -> float | None:
    """A duration of more than 0 in JSON's form of google.protobuf.Duration, as in 0.5s."""
    duration = Duration()
    try:
        duration.FromJsonString(value)
    except (ValueError, AttributeError, TypeError):
        return None
    seconds: float = duration.seconds + duration.nanos / 1e9
    return seconds if seconds > 0 else None


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


def _least_request(reader: Reader) -> dict[str, Any]:
    return {"choice_count": reader.integer("choice_count", 2, 2, 2**32 - 1), **_slow_start(reader)}


def _slow_start(reader: Reader) -> dict[str, Any]:
    inner = reader.child("slow_start_config")
    if inner is None:
        return {}
    window = inner.seconds("slow_start_window", 0.0, positive=True)
    if not inner.has("slow_start_window"):
        inner.error("is required", "slow_start_window")
    aggression, least = 1.0, 10.0
    given = inner.child("aggression")
    if given is not None:
        given.value("runtime_key")
        aggression = given.value("default_value")
        if aggression <= 0:
            given.error(f"must be more than 0, not {aggression:g}", "default_value")
    percent = inner.child("min_weight_percent")
    if percent is not None:
        least = percent.value("value")
        if not 0 <= least <= 100:
            percent.error(f"must be within 0 and 100, not {least:g}", "value")
    return {"slow_start": SlowStart(window, aggression, least)}


_READERS: dict[LbPolicy, Callable[[Reader], dict[str, Any]]] = {
    "RING_HASH": _ring,
    "MAGLEV": _maglev,
    "LEAST_REQUEST": _least_request,
    "ROUND_ROBIN": _slow_start,
}


def _subsets(reader: Reader) -> Subsets:
    selectors: list[SubsetSelector] = []
    for inner in reader.children("subset_selectors"):
        keys = tuple(sorted(set(inner.value("keys"))))
        fallback = inner.enum("fallback_policy", _SELECTOR_FALLBACKS)
        fewer = tuple(sorted(set(inner.value("fallback_keys_subset"))))
        if not keys:
            inner.error("needs at least one key", "keys")
        if (fallback == "KEYS_SUBSET") != bool(fewer):
            inner.error("belongs to fallback_policy KEYS_SUBSET, which needs it", "fallback_keys_subset")
        elif fewer and not set(fewer) < set(keys):
            inner.error("must be some of the keys, not all", "fallback_keys_subset")
        if any(keys == other.keys for other in selectors):
            inner.error("are those of another selector", "keys")
        selectors.append(SubsetSelector(keys, fallback, fewer))
    default: Metadata = ()
    if reader.has("default_subset"):
        default = struct_metadata(reader.opaque("default_subset"))
    return Subsets(tuple(selectors), reader.enum("fallback_policy", _FALLBACKS), default)


def _common(reader: Reader, names: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    threshold = reader.child("healthy_panic_threshold")
    if threshold is not None:
        percent: float = threshold.value("value")
        if not 0 <= percent <= 100:
            threshold.error(f"must be within 0 and 100, not {percent:g}", "value")
        found["healthy_panic_threshold"] = percent
    if reader.which("locality_config_specifier") == "locality_weighted_lb_config":
        found["locality_weighted"] = reader.child("locality_weighted_lb_config") is not None
    hashing = reader.child("consistent_hashing_lb_config")
    if hashing is not None:
        found["use_hostname_for_hashing"] = hashing.value("use_hostname_for_hashing")
        if found["use_hostname_for_hashing"] and not names:
            hashing.error("is for a cluster of type STRICT_DNS", "use_hostname_for_hashing")
    return found
