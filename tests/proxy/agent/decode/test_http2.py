"""codec_type, http2_protocol_options and the protocol of a cluster. What Envoy 1.40 refuses of it, is refused here."""

import json
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.cluster import Cluster
from proxy.config.http2 import Http2Options
from proxy.config.listener import HttpConnectionManager
from tests.support.bootstraps import DOWNSTREAM_TLS, HTTP_OPTIONS, UPSTREAM_TLS, T, changed, parts

H = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
H2 = f"{H}.http2_protocol_options"
C = "static_resources.clusters[0]"
O = f'{C}.typed_extension_protocol_options["{HTTP_OPTIONS}"]'  # noqa: E741
ALPN = "transport_socket.typed_config.common_tls_context.alpn_protocols"
PINGS = {"interval": "30s", "timeout": "10s"}


def manager(**fields: Any) -> HttpConnectionManager:
    snapshot = decode_bootstrap(json.dumps(changed("hcm", **fields)), "boot.json").snapshot
    http = snapshot.listeners["hop"].filter_chain.http
    assert http is not None
    return http


def http2(**fields: Any) -> Http2Options:
    return manager(http2_protocol_options=fields).http2


def options(**fields: Any) -> dict[str, Any]:
    config = {"@type": T + HTTP_OPTIONS, **fields}
    return changed("cluster", typed_extension_protocol_options={HTTP_OPTIONS: config})


def cluster(values: dict[str, Any]) -> Cluster:
    return decode_bootstrap(json.dumps(values), "boot.json").snapshot.clusters["app"]


def problems(values: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json")
    return dict(caught.value.problems)


def test_a_listener_takes_either_protocol_unless_told_otherwise() -> None:
    assert manager().codec == "AUTO"
    assert manager(codec_type="HTTP1").codec == "HTTP1"
    assert manager(codec_type="HTTP2").codec == "HTTP2"


def test_an_empty_message_is_the_defaults() -> None:
    assert http2() == Http2Options() == manager().http2
    assert http2(connection_keepalive={"timeout": "1s"}) == Http2Options(keepalive_timeout=1.0)


def test_every_option_reaches_the_model() -> None:
    found = http2(
        hpack_table_size=0,
        max_concurrent_streams=1,
        initial_stream_window_size=65_535,
        initial_connection_window_size=2**31 - 1,
        allow_connect=True,
        max_outbound_frames=2,
        max_outbound_control_frames=3,
        max_consecutive_inbound_frames_with_empty_payload=0,
        max_inbound_priority_frames_per_stream=5,
        max_inbound_window_update_frames_per_data_frame_sent=6,
        override_stream_error_on_invalid_http_message=True,
        stream_error_on_invalid_http_messaging=True,
        connection_keepalive={**PINGS, "interval_jitter": {"value": 2.5}, "connection_idle_interval": "0.5s"},
    )
    assert found == Http2Options(0, 1, 65_535, 2**31 - 1, True, 2, 3, 0, 5, 6, 30.0, 10.0, 2.5, 0.5)


@pytest.mark.parametrize(
    ("field", "value", "fragment"),
    [
        ("max_concurrent_streams", 0, "within 1 and 2147483647"),
        ("max_concurrent_streams", 2**31, "within 1 and 2147483647"),
        ("initial_stream_window_size", 65_534, "within 65535"),
        ("initial_connection_window_size", 2**31, "within 65535 and 2147483647"),
        ("max_outbound_frames", 0, "within 1"),
        ("max_outbound_control_frames", 0, "within 1"),
        ("max_inbound_window_update_frames_per_data_frame_sent", 0, "within 1"),
        ("override_stream_error_on_invalid_http_message", False, "false is not supported"),
        ("allow_metadata", True, "not supported"),
        ("max_metadata_size", 9, "not supported"),
        ("use_oghttp2_codec", True, "not supported"),
        ("custom_settings_parameters", [{"identifier": 99, "value": 1}], "not supported"),
    ],
)
def test_what_cannot_be_honoured_is_refused(field: str, value: Any, fragment: str) -> None:
    found = problems(changed("hcm", http2_protocol_options={field: value}))
    assert fragment in found.pop(f"{H2}.{field}")
    assert not found


@pytest.mark.parametrize(
    ("settings", "field", "fragment"),
    [
        ({"interval": "1s"}, "timeout", "required"),
        ({"timeout": "0.0009s"}, "timeout", "at least 0.001s"),
        ({**PINGS, "interval": "0s"}, "interval", "at least 0.001s"),
        ({**PINGS, "interval": "-1s"}, "interval", "at least 0s"),
        ({**PINGS, "connection_idle_interval": "0s"}, "connection_idle_interval", "at least 0.001s"),
        ({**PINGS, "interval_jitter": {"value": 100.5}}, "interval_jitter.value", "within 0 and 100"),
    ],
)
def test_pings_are_checked(settings: dict[str, Any], field: str, fragment: str) -> None:
    found = problems(changed("hcm", http2_protocol_options={"connection_keepalive": settings}))
    assert fragment in found.pop(f"{H2}.connection_keepalive.{field}")
    assert not found


def test_a_cluster_says_what_it_speaks() -> None:
    few = {"max_concurrent_streams": 7}
    assert cluster(changed("cluster")).protocol == "HTTP1"
    assert cluster(options(explicit_http_config={"http_protocol_options": {}})).protocol == "HTTP1"
    found = cluster(options(explicit_http_config={"http2_protocol_options": few}))
    assert (found.protocol, found.http2) == ("HTTP2", Http2Options(max_concurrent_streams=7))
    found = cluster(
        options(use_downstream_protocol_config={"http_protocol_options": {}, "http2_protocol_options": few})
    )
    assert (found.protocol, found.http2) == ("DOWNSTREAM", Http2Options(max_concurrent_streams=7))
    assert cluster(options(use_downstream_protocol_config={})).http2 == Http2Options()
    # deprecated, and still taken by Envoy
    found = cluster(changed("cluster", http2_protocol_options=few))
    assert (found.protocol, found.http2) == ("HTTP2", Http2Options(max_concurrent_streams=7))


def both_ways() -> dict[str, Any]:
    values = options(explicit_http_config={"http2_protocol_options": {}})
    parts(values)["cluster"]["http2_protocol_options"] = {}
    return values


@pytest.mark.parametrize(
    ("values", "path", "fragment"),
    [
        (options(auto_config={}), f"{O}.auto_config", "say explicit_http_config or use_downstream_protocol_config"),
        (options(), O, "needs one of explicit_http_config, use_downstream_protocol_config"),
        (options(explicit_http_config={}), f"{O}.explicit_http_config", "needs one of http_protocol_options, http2"),
        (
            options(use_downstream_protocol_config={"http3_protocol_options": {}}),
            f"{O}.use_downstream_protocol_config.http3_protocol_options",
            "not supported",
        ),
        (
            options(explicit_http_config={"http2_protocol_options": {"max_outbound_frames": 0}}),
            f"{O}.explicit_http_config.http2_protocol_options.max_outbound_frames",
            "within 1",
        ),
        (both_ways(), f"{C}.http2_protocol_options", f"cannot be set together with {HTTP_OPTIONS}"),
        (
            changed("cluster", protocol_selection="USE_DOWNSTREAM_PROTOCOL"),
            f"{C}.protocol_selection",
            "not supported",
        ),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(values: dict[str, Any], path: str, fragment: str) -> None:
    found = problems(values)
    assert fragment in found.pop(path)
    assert not found


def upstream(*alpn: str, **protocol: Any) -> dict[str, Any]:
    values = options(explicit_http_config=protocol)
    config = {"@type": UPSTREAM_TLS, "common_tls_context": {"alpn_protocols": list(alpn)}}
    parts(values)["cluster"]["transport_socket"] = {"name": "tls", "typed_config": config}
    return values


def test_alpn_of_a_cluster_agrees_with_what_it_speaks() -> None:
    assert problems(upstream("http/1.1", http2_protocol_options={})) == {
        f"{C}.{ALPN}": "must hold h2: http2_protocol_options speaks HTTP/2"
    }
    assert problems(upstream("custom", "h2", http2_protocol_options={})) == {
        f"{C}.{ALPN}": "custom is not offered for HTTP/2, only h2"
    }
    # none given: the worker offers h2 by itself; either may be said where the other is spoken
    for offered in ((), ("h2",), ("h2", "http/1.1")):
        assert cluster(upstream(*offered, http2_protocol_options={})).tls is not None
    assert cluster(upstream("h2", "http/1.1", http_protocol_options={})).protocol == "HTTP1"


@pytest.mark.parametrize(
    ("codec", "alpn", "problem"),
    [
        ("HTTP1", ["h2", "http/1.1"], "must not hold h2: codec_type HTTP1 speaks HTTP/1.1"),
        ("HTTP2", ["http/1.1"], "must hold h2: codec_type HTTP2 speaks HTTP/2"),
        ("HTTP1", ["http/1.1"], None),
        ("HTTP2", ["h2"], None),
        ("AUTO", ["h2"], None),
        ("AUTO", ["http/1.1"], None),
    ],
)
def test_alpn_of_a_listener_agrees_with_its_codec(codec: str, alpn: list[str], problem: str | None) -> None:
    values = changed("hcm", codec_type=codec)
    nobody = {"certificate_chain": {"inline_string": "x"}, "private_key": {"inline_string": "x"}}
    context = {"alpn_protocols": alpn, "tls_certificates": [nobody]}
    config = {"@type": DOWNSTREAM_TLS, "common_tls_context": context}
    parts(values)["chain"]["transport_socket"] = {"name": "tls", "typed_config": config}
    # The certificate is none, which is told, too.
    assert problems(values).get(f"static_resources.listeners[0].filter_chains[0].{ALPN}") == problem
