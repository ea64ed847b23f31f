"""How a cluster's requests are spread over its endpoints (envoy.config.cluster.v3.Cluster)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LbPolicy = Literal["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV", "PEAK_EWMA"]


@dataclass(frozen=True, slots=True)
class SlowStart:
    """envoy.config.cluster.v3.Cluster.SlowStartConfig; the window is in seconds."""

    window: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0


Metadata = tuple[tuple[str, str], ...]
"""filter_metadata["envoy.lb"] as sorted (key, value in JSON) pairs: what subsets are made by."""

Fallback = Literal["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"]


@dataclass(frozen=True, slots=True)
class SubsetSelector:
    """envoy.config.cluster.v3.Cluster.LbSubsetConfig.LbSubsetSelector; the keys are sorted."""

    keys: tuple[str, ...]
    fallback: Literal[Fallback, "NOT_DEFINED", "KEYS_SUBSET"] = "NOT_DEFINED"
    fallback_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subsets:
    """envoy.config.cluster.v3.Cluster.LbSubsetConfig."""

    selectors: tuple[SubsetSelector, ...] = ()
    fallback: Fallback = "NO_FALLBACK"
    default: Metadata = ()


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """The options of every lb_policy, with Envoy's defaults.

    `hash_function`, `minimum_ring_size` (points of each endpoint) and `maximum_ring_size` (points of all) are
    RingHashLbConfig's, `maglev_table_size` is MaglevLbConfig's; `use_hostname_for_hashing` is
    ConsistentHashingLbConfig's: an endpoint's place follows its host name, and not its address. `choice_count` is
    LeastRequestLbConfig's. Those of peak EWMA are seconds: how soon old answers are forgotten, and what an endpoint
    counts as before its first one. `healthy_panic_threshold` is in percent, 0 for none; `locality_weighted`: localities
    get the shares of their weights.
    """

    hash_function: Literal["XX_HASH", "MURMUR_HASH_2"] = "XX_HASH"
    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8 * 1024 * 1024
    maglev_table_size: int = 65537
    use_hostname_for_hashing: bool = False
    choice_count: int = 2
    ewma_decay_time: float = 10.0
    ewma_default_rtt: float = 0.03
    healthy_panic_threshold: float = 50.0
    locality_weighted: bool = False
    subsets: Subsets | None = None
    slow_start: SlowStart | None = None


@dataclass(frozen=True, slots=True)
class Locality:
    """envoy.config.endpoint.v3.LocalityLbEndpoints without its endpoints. `priority` 0 is the highest; a `weight`
    (load_balancing_weight) of 0 is none."""

    priority: int = 0
    weight: int = 0
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


LB_DEFAULTS = LoadBalancing()
NO_LOCALITY = Locality()
