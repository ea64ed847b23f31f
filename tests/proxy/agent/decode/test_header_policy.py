"""The fields of header policy and timeouts: what a listener, a route and a cluster make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.agent.decode import DecodeError
from proxy.agent.decode.bootstrap import decode_bootstrap
from proxy.config.cluster import Cluster
from proxy.config.listener import HttpConnectionManager
from proxy.config.route import ForwardAction, HeaderMutations, HeaderValueOption, RouteConfiguration
from tests.support.bootstraps import HTTP_OPTIONS, T, changed


def manager(**fields: Any) -> HttpConnectionManager:
    snapshot = decode_bootstrap(json.dumps(changed("hcm", **fields)), "boot.json").snapshot
    http = snapshot.listeners["hop"].filter_chain.http
    assert http is not None
    return http


def routes(place: str, **fields: Any) -> RouteConfiguration:
    snapshot = decode_bootstrap(json.dumps(changed(place, **fields)), "boot.json").snapshot
    http = snapshot.listeners["hop"].filter_chain.http
    assert http is not None
    assert http.route_config is not None
    return http.route_config


def action(**fields: Any) -> ForwardAction:
    found = routes("action", **fields).virtual_hosts[0].routes[0].action
    assert isinstance(found, ForwardAction)
    return found


def problems(place: str, **fields: Any) -> list[tuple[str, str]]:
    """(last part of the path, message) of what is wrong."""
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(changed(place, **fields)), "boot.json")
    return [(path.rpartition("]")[2].lstrip(".") or path, message) for path, message in caught.value.problems]


def test_the_defaults_are_those_of_the_model() -> None:
    found = manager()
    assert found == HttpConnectionManager("hop", route_config=found.route_config)


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"normalize_path": True}, "normalize_path", True),
        ({"merge_slashes": True}, "merge_slashes", True),
        (
            {"path_with_escaped_slashes_action": "IMPLEMENTATION_SPECIFIC_DEFAULT"},
            "path_with_escaped_slashes_action",
            "KEEP_UNCHANGED",
        ),
        (
            {"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"},
            "path_with_escaped_slashes_action",
            "UNESCAPE_AND_REDIRECT",
        ),
        ({"xff_num_trusted_hops": 2}, "xff_num_trusted_hops", 2),
        ({"skip_xff_append": True}, "skip_xff_append", True),
        ({"via": "1.1 edge"}, "via", "1.1 edge"),
        ({"server_header_transformation": "PASS_THROUGH"}, "server_header_transformation", "PASS_THROUGH"),
        ({"always_set_request_id_in_response": True}, "always_set_request_id_in_response", True),
        ({"common_http_protocol_options": {"idle_timeout": "2s"}}, "idle_timeout", 2.0),
        ({"common_http_protocol_options": {"max_headers_count": 3}}, "max_headers_count", 3),
        ({"common_http_protocol_options": {"max_connection_duration": "2s"}}, "max_connection_duration", 2.0),
        ({"common_http_protocol_options": {"max_stream_duration": "2s"}}, "max_stream_duration", 2.0),
        ({"common_http_protocol_options": {"max_requests_per_connection": 5}}, "max_requests_per_connection", 5),
        (
            {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}},
            "headers_with_underscores_action",
            "DROP_HEADER",
        ),
        ({"request_timeout": "2s"}, "request_timeout", 2.0),
        ({"request_headers_timeout": "0s"}, "request_headers_timeout", 0.0),
        ({"delayed_close_timeout": "0s"}, "delayed_close_timeout", 0.0),
        ({"http_protocol_options": {"accept_http_10": True}}, "accept_http_10", True),
        ({"http_protocol_options": {"default_host_for_http_10": "old:8"}}, "default_host_for_http_10", "old:8"),
        ({"http_protocol_options": {"allow_absolute_url": False}}, "allow_absolute_url", False),
        ({"strip_any_host_port": True}, "strip_any_host_port", True),
        ({"strip_matching_host_port": True}, "strip_matching_host_port", True),
    ],
)
def test_a_field_of_the_connection_manager(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(manager(), name) != value or name == "path_with_escaped_slashes_action"
    assert getattr(manager(**fields), name) == value


def test_two_ways_to_strip_a_port_are_one_too_many() -> None:
    found = problems("hcm", strip_any_host_port=True, strip_matching_host_port=True)
    assert [path for path, _ in found] == ["typed_config.strip_matching_host_port"]


def test_header_mutations_at_three_levels() -> None:
    def option(key: str, **more: Any) -> dict[str, Any]:
        return {"header": {"key": key, "value": "v-%PROTOCOL%"}, **more}

    fields = {
        "request_headers_to_add": [
            option("X-A"),
            option("x-b", append_action="OVERWRITE_IF_EXISTS", keep_empty_value=True),
            option("x-c", append=False),
            option("x-d", append=True),
        ],
        "request_headers_to_remove": ["X-Gone"],
        "response_headers_to_add": [option("x-e", append_action="ADD_IF_ABSENT")],
        "response_headers_to_remove": ["x-f", "Server"],
    }
    expected = HeaderMutations(
        (
            HeaderValueOption("x-a", "v-%PROTOCOL%"),
            HeaderValueOption("x-b", "v-%PROTOCOL%", "OVERWRITE_IF_EXISTS", True),
            HeaderValueOption("x-c", "v-%PROTOCOL%", "OVERWRITE_IF_EXISTS_OR_ADD"),
            HeaderValueOption("x-d", "v-%PROTOCOL%"),
        ),
        ("x-gone",),
        (HeaderValueOption("x-e", "v-%PROTOCOL%", "ADD_IF_ABSENT"),),
        ("x-f", "server"),
    )
    assert routes("routes", **fields).headers == expected
    assert routes("host", **fields).virtual_hosts[0].headers == expected
    assert routes("route", **fields).virtual_hosts[0].routes[0].headers == expected
    assert routes("routes", most_specific_header_mutations_wins=True).most_specific_header_mutations_wins


@pytest.mark.parametrize(
    ("name", "value", "where", "problem"),
    [
        ("Host", "x", "header.key", "host cannot be changed here"),
        (":path", "x", "header.key", ":path cannot be changed here"),
        ("Content-Length", "1", "header.key", "content-length cannot be changed here"),
        ("x-pillion-unsent", "1", "header.key", "x-pillion-unsent cannot be changed here"),
        ("a b", "x", "header.key", "'a b' is not the name of a header"),
        ("x", "%NOPE%", "header.value", "unknown operator %NOPE%"),
    ],
)
def test_a_mutation_that_cannot_be(name: str, value: str, where: str, problem: str) -> None:
    entry = {"header": {"key": name, "value": value}}
    ((path, message),) = problems("route", request_headers_to_add=[entry])
    assert path == where
    assert message.startswith(problem)


def test_a_framing_header_cannot_be_removed() -> None:
    ((_, message),) = problems("host", response_headers_to_remove=["x", "Transfer-Encoding"])
    assert message == "transfer-encoding cannot be changed here"


def test_timeouts_of_a_route() -> None:
    assert action() == ForwardAction(action().clusters)
    assert action(idle_timeout="2s").idle_timeout == 2.0
    assert action(idle_timeout="0s").idle_timeout == 0.0
    assert action(auto_host_rewrite=True).auto_host_rewrite
    # As in Envoy, its presence turns the route's timeout off.
    longest = action(timeout="3s", max_stream_duration={"max_stream_duration": "2s"})
    assert (longest.timeout, longest.max_stream_duration) == (0.0, 2.0)
    left = action(timeout="3s", max_stream_duration={})
    assert (left.timeout, left.max_stream_duration) == (0.0, None)


def test_limits_of_a_cluster() -> None:
    options = {
        "@type": T + HTTP_OPTIONS,
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": {
            "idle_timeout": "1s",
            "max_connection_duration": "2s",
            "max_headers_count": 3,
            "max_response_headers_kb": 4,
            "max_requests_per_connection": 5,
        },
    }
    values = changed("cluster", typed_extension_protocol_options={HTTP_OPTIONS: options})
    assert decode_bootstrap(json.dumps(values), "boot.json").snapshot.clusters["app"] == Cluster(
        "app",
        "STATIC",
        "app",
        idle_timeout=1.0,
        max_connection_duration=2.0,
        max_headers_count=3,
        max_response_headers_bytes=4096,
        max_requests_per_connection=5,
    )
