"""TcpProxy: each supported field, Envoy's defaults, and every other field an error with its path."""

from typing import Any

import pytest
from envoy.config.listener.v3.listener_pb2 import Listener as ListenerProto
from envoy.extensions.access_loggers.stream.v3 import stream_pb2 as _stream
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2 as _tcp_proxy
from google.protobuf import json_format

from proxy.agent.decode import DecodeError, decode_listener
from proxy.agent.state import missing
from proxy.config.cluster import Cluster, LoadAssignment
from proxy.config.listener import AccessLog, FilterChain, Listener, TcpProxy
from proxy.config.model import Address
from proxy.config.route import WeightedCluster
from proxy.config.snapshot import Snapshot, consistent
from tests.support.bootstraps import T, address

TCP_PROXY = T + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
# Their types must be in the pool for ParseDict to see them inside of an Any.
LOADED = (_tcp_proxy, _stream)
STDOUT = T + "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"


def listener(**fields: Any) -> ListenerProto:
    config = {"@type": TCP_PROXY, "stat_prefix": "t", **fields}
    chain = {"filters": [{"name": "tcp", "typed_config": config}]}
    return json_format.ParseDict({"name": "l", "address": address(1), "filter_chains": [chain]}, ListenerProto())


def decoded(**fields: Any) -> TcpProxy:
    found = decode_listener(listener(**fields)).filter_chain
    assert found.http is None
    assert found.tcp is not None
    return found.tcp


def test_nothing_but_defaults() -> None:
    assert decoded(cluster="app") == TcpProxy("t", (WeightedCluster("app"),), (), 3600.0, 1, 0.0)


def test_every_field() -> None:
    log = {"name": "log", "typed_config": {"@type": STDOUT, "log_format": {"json_format": {"a": "%DURATION%"}}}}
    shares = {"clusters": [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]}
    assert decoded(
        weighted_clusters=shares,
        access_log=[log],
        idle_timeout="0s",
        max_connect_attempts=4,
        max_downstream_connection_duration="90.5s",
    ) == TcpProxy(
        stat_prefix="t",
        clusters=(WeightedCluster("a", 3), WeightedCluster("b", 1)),
        access_logs=(AccessLog("/dev/stdout", (("a", "%DURATION%"),)),),
        idle_timeout=0.0,
        max_connect_attempts=4,
        max_downstream_connection_duration=90.5,
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "needs one of cluster, weighted_clusters"),
        ({"cluster": "a", "stat_prefix": ""}, "stat_prefix: is required"),
        ({"cluster": "a", "max_connect_attempts": 0}, "max_connect_attempts: must be within 1 and"),
        ({"weighted_clusters": {"clusters": [{"name": "a"}]}}, "clusters[0].weight: must be at least 1"),
        ({"weighted_clusters": {"clusters": [{"weight": 1}]}}, "clusters[0].name: is required"),
        ({"weighted_clusters": {}}, "weighted_clusters.clusters: needs at least one cluster"),
        (
            {"weighted_clusters": {"clusters": [{"name": "a", "weight": 2**32 - 1}, {"name": "b", "weight": 1}]}},
            "add up",
        ),
        ({"cluster": "a", "hash_policy": [{"source_ip": {}}]}, "typed_config.hash_policy: this field is not supported"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_listener(listener(**fields))
    assert 'listener "l": filter_chains[0].filters[0].typed_config' in str(caught.value)
    assert words in str(caught.value)


def test_its_clusters_are_waited_for_and_must_exist() -> None:
    relay = TcpProxy("t", (WeightedCluster("a"), WeightedCluster("b")))
    config = Snapshot(
        listeners={"l": Listener("l", Address("127.0.0.1", 1), FilterChain(tcp=relay))},
        clusters={"a": Cluster("a", "STATIC", "a")},
        assignments={"a": LoadAssignment("a", ())},
    )
    assert consistent(config) == ["listener 'l' refers to cluster 'b', which does not exist"]
    assert missing(config) == {("clusters", "b")}
