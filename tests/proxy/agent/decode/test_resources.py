"""Resources as the control plane sends them: each supported field, Envoy's defaults, errors that name the resource."""

import time
from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster as ClusterProto
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener as ListenerProto
from envoy.config.route.v3.route_pb2 import RouteConfiguration as RouteProto
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as _hcm
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2 as _tls
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _options
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.agent.decode import (
    DecodeError,
    decode_cluster,
    decode_listener,
    decode_load_assignment,
    decode_route_configuration,
)
from proxy.config.balance import Locality
from proxy.config.cluster import CircuitBreakers, Cluster, Endpoint, LoadAssignment, OutlierDetection
from proxy.config.listener import FilterChain, HttpConnectionManager, Listener
from proxy.config.model import Address, DownstreamTls, SanMatcher, StringMatcher, UpstreamTls, Validation
from proxy.config.route import (
    DirectResponse,
    ForwardAction,
    HeaderMatcher,
    QueryParameterMatcher,
    RetryPolicy,
    Route,
    RouteMatch,
    WeightedCluster,
)
from tests.support.bootstraps import (
    DOWNSTREAM_TLS,
    HCM,
    HTTP_OPTIONS,
    LUA,
    ROUTER,
    UPSTREAM_TLS,
    T,
    address,
    cluster,
    endpoint,
)

# Their types must be in the pool for ParseDict to see them inside of an Any.
LOADED = (_router, _hcm, _tls, _options)
ADS = {"ads": {}, "resource_api_version": "V3"}


def make(message: Any, values: dict[str, Any]) -> Any:
    return json_format.ParseDict(values, message)


def packed(message: Any) -> AnyMessage:
    any_message = AnyMessage()
    any_message.Pack(message)
    return any_message


# ---- listeners -------------------------------------------------------------------------------------------


def listener(hcm: dict[str, Any] | None = None, **more: Any) -> Any:
    manager = {
        "@type": HCM,
        "stat_prefix": "s",
        "rds": {"route_config_name": "outbound", "config_source": ADS},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        **(hcm or {}),
    }
    chain = {"filters": [{"name": "hcm", "typed_config": manager}], **more.pop("chain", {})}
    return make(ListenerProto(), {"name": "inbound", "address": address(15006), "filter_chains": [chain], **more})


def test_a_listener_with_nothing_but_defaults() -> None:
    expected = Listener("inbound", Address("127.0.0.1", 15006), FilterChain(HttpConnectionManager("s", rds="outbound")))
    assert decode_listener(listener()) == expected
    assert decode_listener(packed(listener())) == expected


def test_every_field_of_the_connection_manager() -> None:
    found = decode_listener(
        listener(
            {
                "codec_type": "HTTP1",
                "tracing": {},
                "generate_request_id": False,
                "preserve_external_request_id": True,
                "use_remote_address": True,
                "server_name": "me",
                "forward_client_cert_details": "SANITIZE_SET",
                "set_current_client_cert_details": {"subject": True, "uri": True, "cert": True, "dns": True},
                "common_http_protocol_options": {"idle_timeout": "1.5s", "max_headers_count": 7},
                "stream_idle_timeout": "0s",
                "request_headers_timeout": "2s",
                "drain_timeout": "0.001s",
                "max_request_headers_kb": 96,
            },
            traffic_direction="INBOUND",
            chain={"transport_socket_connect_timeout": "3s", "name": "c"},
        )
    )
    assert found.filter_chain == FilterChain(
        HttpConnectionManager(
            "s",
            rds="outbound",
            tracing=True,
            generate_request_id=False,
            preserve_external_request_id=True,
            use_remote_address=True,
            server_name="me",
            forward_client_cert_details="SANITIZE_SET",
            set_current_client_cert_details=("cert", "subject", "uri", "dns"),
            idle_timeout=1.5,
            stream_idle_timeout=0.0,
            request_headers_timeout=2.0,
            drain_timeout=0.001,
            max_request_headers_bytes=96 * 1024,
            max_headers_count=7,
            codec="HTTP1",
        ),
        transport_socket_connect_timeout=3.0,
    )
    assert found.traffic_direction == "INBOUND"


def test_tls_by_sds_names() -> None:
    config = {
        "@type": DOWNSTREAM_TLS,
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": ADS}],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [
                        {"san_type": "URI", "matcher": {"prefix": "spiffe://pillion.local/"}}
                    ]
                },
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": ADS},
            },
            "alpn_protocols": ["http/1.1"],
        },
    }
    found = decode_listener(listener(chain={"transport_socket": {"name": "tls", "typed_config": config}}))
    san = SanMatcher("URI", StringMatcher("prefix", "spiffe://pillion.local/"))
    assert found.filter_chain.tls == DownstreamTls("default", Validation("ROOTCA", (san,)), True, ("http/1.1",))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"tls_certificates": [{"certificate_chain": {"filename": "/a"}}]}, "tls_certificates[0]: only SDS names"),
        ({"validation_context": {"trusted_ca": {"filename": "/a"}}}, "trusted_ca: only SDS names"),
        ({"tls_certificate_sds_secret_configs": [{"name": "default"}]}, "sds_config: is required"),
        ({"tls_certificate_sds_secret_configs": [{"name": "a", "sds_config": {"path": "/a"}}]}, "must be ads, not path"),
        ({"combined_validation_context": {}}, "validation_context_sds_secret_config: is required"),
    ],
)  # fmt: skip
def test_a_control_plane_can_name_secrets_only_by_sds(context: dict[str, Any], words: str) -> None:
    config = {"@type": UPSTREAM_TLS, "common_tls_context": context}
    message = make(ClusterProto(), cluster(transport_socket={"name": "tls", "typed_config": config}, name="a"))
    with pytest.raises(DecodeError) as caught:
        decode_cluster(message)
    assert words in str(caught.value)


def test_a_control_plane_cannot_read_files_of_this_machine() -> None:
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"filename": "/etc/hostname"}}}
    with pytest.raises(DecodeError, match="files are read only for a bootstrap file"):
        decode_route_configuration(routes([route]))


def test_an_error_begins_with_the_resource() -> None:
    message = listener({"http_filters": [{"name": "x", "typed_config": {"@type": ROUTER}, "disabled": True}]})
    with pytest.raises(DecodeError) as caught:
        decode_listener(message)
    assert str(caught.value) == (
        'listener "inbound": filter_chains[0].filters[0].typed_config.http_filters[0].disabled: '
        "this field is not supported"
    )


def test_an_error_is_one_line_whatever_the_name_is() -> None:
    message = make(ClusterProto(), {**cluster("a\nb" + "c" * 1000), "alt_stat_name": "x"})
    with pytest.raises(DecodeError) as caught:
        decode_cluster(message)
    assert "\n" not in str(caught.value)
    assert 'cluster "a\\nbccc' in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_warnings_instead_of_errors_when_a_list_is_given() -> None:
    warnings: list[str] = []
    assert decode_listener(listener(stat_prefix="x"), warnings).name == "inbound"
    assert warnings == ['listener "inbound": stat_prefix: this field is not supported']


@pytest.mark.parametrize(
    "decode", [decode_listener, decode_cluster, decode_route_configuration, decode_load_assignment]
)
def test_another_type_or_bytes_that_are_none_are_refused(decode: Any) -> None:
    for message in (AnyMessage(), AnyMessage(type_url=LUA), _router.Router()):
        with pytest.raises(DecodeError, match="expected a envoy"):
            decode(message)


def test_corrupt_bytes_inside_are_refused() -> None:
    message = listener()
    message.filter_chains[0].filters[0].typed_config.value = b"\xff"
    with pytest.raises(DecodeError, match=r"filters\[0\]\.typed_config: the bytes are not a envoy"):
        decode_listener(message)


# ---- routes ----------------------------------------------------------------------------------------------


def routes(entries: list[dict[str, Any]], **more: Any) -> Any:
    host = {"name": "cart", "domains": ["Cart", "*.cart", "cart.*", "*"], "routes": entries}
    return make(RouteProto(), {"name": "outbound", "virtual_hosts": [host], **more})


def one_route(**fields: Any) -> Route:
    message = routes([{"match": {"prefix": "/"}, "route": {"cluster": "a"}, **fields}])
    return decode_route_configuration(message).virtual_hosts[0].routes[0]


def test_a_route_configuration() -> None:
    found = decode_route_configuration(routes([], ignore_port_in_host_matching=True))
    assert (found.name, found.ignore_port_in_host_matching) == ("outbound", True)
    assert found.virtual_hosts[0].domains == ("cart", "*.cart", "cart.*", "*")


def test_a_route_with_nothing_but_defaults() -> None:
    assert one_route() == Route(
        RouteMatch("prefix", "/"), ForwardAction((WeightedCluster("a", 1),), 15.0, None, None, None)
    )


@pytest.mark.parametrize(
    ("match", "kind", "value"),
    [
        ({"prefix": "/a"}, "prefix", "/a"),
        ({"path": "/a"}, "path", "/a"),
        ({"path_separated_prefix": "/a"}, "path_separated_prefix", "/a"),
        ({"safe_regex": {"regex": "/a+", "google_re2": {}}}, "safe_regex", "/a+"),
    ],
)
def test_paths(match: dict[str, Any], kind: Any, value: str) -> None:
    assert one_route(match=match).match == RouteMatch(kind, value)
    assert one_route(match={**match, "case_sensitive": False}).match == RouteMatch(kind, value, False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, HeaderMatcher("x-a")),
        ({"present_match": True}, HeaderMatcher("x-a")),
        ({"present_match": False}, HeaderMatcher("x-a", None, invert=True)),
        ({"present_match": False, "invert_match": True}, HeaderMatcher("x-a")),
        ({"present_match": True, "invert_match": True}, HeaderMatcher("x-a", None, invert=True)),
        ({"string_match": {"exact": ""}}, HeaderMatcher("x-a", StringMatcher("exact", ""))),
        ({"string_match": {"suffix": "A", "ignore_case": True}}, HeaderMatcher("x-a", StringMatcher("suffix", "A", True))),
        ({"string_match": {"contains": "a"}}, HeaderMatcher("x-a", StringMatcher("contains", "a"))),
        ({"string_match": {"safe_regex": {"regex": "a"}, "ignore_case": True}}, HeaderMatcher("x-a", StringMatcher("safe_regex", "a"))),
        ({"string_match": {"prefix": "a"}, "invert_match": True, "treat_missing_header_as_empty": True}, HeaderMatcher("x-a", StringMatcher("prefix", "a"), True, True)),
    ],
)  # fmt: skip
def test_headers(header: dict[str, Any], expected: HeaderMatcher) -> None:
    assert one_route(match={"prefix": "/", "headers": [{"name": "X-A", **header}]}).match.headers == (expected,)


def test_query_parameters() -> None:
    given_ = [{"name": "a", "string_match": {"exact": "1"}}, {"name": "b", "present_match": True}, {"name": "c"}]
    found = one_route(match={"prefix": "/", "query_parameters": given_}).match.query_parameters
    assert found == (
        QueryParameterMatcher("a", StringMatcher("exact", "1")),
        QueryParameterMatcher("b"),
        QueryParameterMatcher("c"),
    )


def test_an_action_with_everything() -> None:
    action = {
        "weighted_clusters": {"clusters": [{"name": "a", "weight": 95}, {"name": "b", "weight": 0}]},
        "timeout": "0s",
        "prefix_rewrite": "/x",
        "host_rewrite_literal": "y",
        "retry_policy": {"retry_on": "connect-failure, reset,refused-stream,reset-before-request"},
    }
    found = one_route(route=action, name="r", metadata={"filter_metadata": {"z": {}}})
    assert found == Route(
        RouteMatch("prefix", "/"),
        ForwardAction(
            (WeightedCluster("a", 95), WeightedCluster("b", 0)),
            0.0,
            RetryPolicy(frozenset({"connect-failure", "reset", "refused-stream", "reset-before-request"}), 1),
            "/x",
            "y",
        ),
        "r",
    )


def test_num_retries_zero_is_zero() -> None:
    action = {"cluster": "a", "retry_policy": {"retry_on": "reset", "num_retries": 0}}
    found = one_route(route=action).action
    assert isinstance(found, ForwardAction)
    assert found.retry == RetryPolicy(frozenset({"reset"}), 0)


def test_direct_response() -> None:
    message = routes([{"match": {"prefix": "/"}, "direct_response": {"status": 403, "body": {"inline_string": "é"}}}])
    assert decode_route_configuration(message).virtual_hosts[0].routes[0].action == DirectResponse(403, "é".encode())
    message = routes([{"match": {"prefix": "/"}, "direct_response": {"status": 204}}])
    assert decode_route_configuration(message).virtual_hosts[0].routes[0].action == DirectResponse(204)


# ---- clusters --------------------------------------------------------------------------------------------


def test_a_static_cluster_with_nothing_but_defaults() -> None:
    found = decode_cluster(make(ClusterProto(), cluster("inbound")))
    assert found.cluster == Cluster("inbound", "STATIC", "inbound")
    assert found.assignment == LoadAssignment("inbound", (Endpoint(Address("127.0.0.1", 8080)),))
    assert found.dns == ()


def test_an_eds_cluster_with_everything() -> None:
    tls = {
        "@type": UPSTREAM_TLS,
        "sni": "cart",
        "common_tls_context": {"validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": ADS}},
    }
    values = {
        "name": "cart|v1",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS, "service_name": "cart-v1"},
        "connect_timeout": "0.25s",
        "lb_policy": "RANDOM",
        "metadata": {"filter_metadata": {"istio": {"any": "thing"}}},
        "transport_socket": {"name": "tls", "typed_config": tls},
        "circuit_breakers": {"thresholds": [{"max_connections": 1, "max_requests": 0}]},
        "outlier_detection": {},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": T + HTTP_OPTIONS,
                "common_http_protocol_options": {"idle_timeout": "60s", "max_requests_per_connection": 9},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
    found = decode_cluster(packed(make(ClusterProto(), values)))
    assert (found.assignment, found.dns) == (None, ())
    assert found.cluster == Cluster(
        "cart|v1",
        "EDS",
        "cart-v1",
        0.25,
        "RANDOM",
        UpstreamTls(None, Validation("ROOTCA"), "cart"),
        CircuitBreakers(1, 1024, 0, 3),
        OutlierDetection(),
        60.0,
        9,
    )


def test_an_eds_cluster_is_its_own_service_name() -> None:
    values = {"name": "cart", "type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
    assert decode_cluster(make(ClusterProto(), values)).cluster.load_assignment == "cart"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"consecutive_5xx": 0}, OutlierDetection(consecutive_5xx=0)),
        ({"enforcing_success_rate": 30}, OutlierDetection(enforcing_success_rate=30)),
        ({"base_ejection_time": "400s"}, OutlierDetection(base_ejection_time=400.0, max_ejection_time=400.0)),
        ({"max_ejection_time": "40s", "max_ejection_percent": 100}, OutlierDetection(max_ejection_time=40.0, max_ejection_percent=100)),
        (
            {"split_external_local_origin_errors": True, "always_eject_one_host": True, "interval": "0.5s"},
            OutlierDetection(split_external_local_origin_errors=True, always_eject_one_host=True, interval=0.5),
        ),
    ],
)  # fmt: skip
def test_outlier_detection_has_the_defaults_of_envoy(given_: dict[str, Any], expected: OutlierDetection) -> None:
    message = make(ClusterProto(), cluster(outlier_detection=given_))
    assert decode_cluster(message).cluster.outlier_detection == expected


# ---- endpoints -------------------------------------------------------------------------------------------


ZONE = Locality(0, 1, zone="a")


def assignment(*entries: dict[str, Any]) -> Any:
    locality = {"locality": {"zone": "a"}, "load_balancing_weight": 1, "lb_endpoints": list(entries)}
    return make(ClusterLoadAssignment(), {"cluster_name": "cart", "endpoints": [locality]})


def test_endpoints_with_labels_of_our_own_namespace() -> None:
    metadata = {"filter_metadata": {"pillion": {"version": "v1", "instance": "i"}, "envoy.lb": {"a": 1}}}
    message = assignment({**endpoint(1), "load_balancing_weight": 5, "metadata": metadata}, endpoint(2, "::1"))
    assert decode_load_assignment(message) == LoadAssignment(
        "cart",
        (
            Endpoint(
                Address("127.0.0.1", 1),
                5,
                True,
                (("instance", "i"), ("version", "v1")),
                locality=ZONE,
                metadata=(("a", "1.0"),),
            ),
            Endpoint(Address("::1", 2), locality=ZONE),
        ),
    )


@pytest.mark.parametrize(
    ("status", "healthy"),
    [("UNKNOWN", True), ("HEALTHY", True), ("UNHEALTHY", False), ("DRAINING", False), ("TIMEOUT", False), ("DEGRADED", False)],
)  # fmt: skip
def test_health(status: str, healthy: bool) -> None:
    message = assignment({**endpoint(1), "health_status": status})
    (found,) = decode_load_assignment(message).endpoints
    assert (found.healthy, found.degraded) == (healthy, status == "DEGRADED")


def test_localities_and_their_priorities() -> None:
    where = {"region": "r", "zone": "z", "sub_zone": "s"}
    localities = [
        {"locality": where, "priority": 1, "load_balancing_weight": 3, "lb_endpoints": [endpoint(1)]},
        {"lb_endpoints": [{**endpoint(2), "load_balancing_weight": 2}]},
    ]
    values = {"cluster_name": "cart", "endpoints": localities, "policy": {"overprovisioning_factor": 200}}
    assert decode_load_assignment(make(ClusterLoadAssignment(), values)) == LoadAssignment(
        "cart",
        (
            Endpoint(Address("127.0.0.1", 1), locality=Locality(1, 3, "r", "z", "s")),
            Endpoint(Address("127.0.0.1", 2), 2),
        ),
        200,
    )


def test_no_endpoints_is_an_answer() -> None:
    message = make(ClusterLoadAssignment(), {"cluster_name": "cart"})
    assert decode_load_assignment(message) == LoadAssignment("cart", ())


def test_an_address_listed_twice_counts_once_as_in_envoy() -> None:
    found = decode_load_assignment(assignment({**endpoint(1), "load_balancing_weight": 2}, endpoint(1)))
    assert found.endpoints == (Endpoint(Address("127.0.0.1", 1), 2, locality=ZONE),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"endpoint": {"address": address(1), "hostname": "é"}}, "endpoint.hostname: must be ASCII"),
        ({"endpoint": {"address": address(1, "a.b")}}, "socket_address.address: must be an IP address"),
        ({"endpoint": {"address": {"pipe": {"path": "/a"}}}}, "endpoint: needs an address with a socket_address"),
        ({"endpoint": {"address": address(70000)}}, "port_value: must be within"),
        ({"load_balancing_weight": 0}, "load_balancing_weight: must be within"),
        ({"endpoint_name": "a"}, "endpoint_name: this field"),
        ({"metadata": {"filter_metadata": {"pillion": {"a": 1}}}}, 'filter_metadata["pillion"].a: must be a string'),
    ],
)  # fmt: skip
def test_the_quick_path_is_as_strict(change: dict[str, Any], words: str) -> None:
    change = {**endpoint(2), **change}
    if "endpoint_name" in change:
        del change["endpoint"]
    with pytest.raises(DecodeError) as caught:
        decode_load_assignment(assignment(endpoint(1), change))
    assert 'load assignment "cart": endpoints[0].lb_endpoints[1].' in str(caught.value)
    assert words in str(caught.value)


def test_the_quick_path_sees_fields_of_a_newer_proto() -> None:
    message = assignment(endpoint(1))
    inner = message.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    inner.MergeFromString(b"\xfa\x3f\x01x")
    with pytest.raises(DecodeError, match="field number 1023 is not known"):
        decode_load_assignment(message)


@settings(deadline=None)  # the first example imports the protos
@given(
    st.lists(
        st.tuples(st.ip_addresses(), st.integers(0, 65535), st.integers(1, 2**32 - 1)),
        unique_by=lambda item: item[:2],
        max_size=20,
    )
)
def test_any_address_port_and_weight(entries: list[tuple[Any, int, int]]) -> None:
    message = assignment(*[{**endpoint(p, str(ip)), "load_balancing_weight": w} for ip, p, w in entries])
    assert decode_load_assignment(message).endpoints == tuple(
        Endpoint(Address(str(ip), port), weight, locality=ZONE) for ip, port, weight in entries
    )


def test_five_thousand_endpoints_are_quick() -> None:
    """The bound is ten times what it takes, so that only a change of order is caught, not a slow machine."""
    labels = {"filter_metadata": {"pillion": {"instance": "cart-1", "version": "v1"}}}
    message = assignment(*[{**endpoint(1, f"10.0.{i // 250}.{i % 250}"), "metadata": labels} for i in range(5000)])
    start = time.process_time()
    assert len(decode_load_assignment(message).endpoints) == 5000
    took = time.process_time() - start
    assert took < 1.0, took
