"""Nothing is ignored: each field of each message is either on this list or refused, by name and path.

The list is the documentation of what is supported. A new version of the protos that adds a field changes nothing here:
the field is refused until a decoder takes it.
"""

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from proxy.agent.decode.reader import Context, Reader
from proxy.agent.decode.secrets import Secrets
from proxy.agent.decode.shape import parse
from proxy.config.balance import NO_LOCALITY
from tests.support.bootstraps import bootstrap

CDS = "proxy.agent.decode.cds:"
LDS = "proxy.agent.decode.lds:"
HCM = "proxy.agent.decode.hcm:"
RDS = "proxy.agent.decode.rds:"
RETRY = "proxy.agent.decode.retry:"
EDS = "proxy.agent.decode.eds:"
TLS = "proxy.agent.decode.tls:"
BALANCE = "proxy.agent.decode.balance:"
CHECK = "proxy.agent.decode.health_check:"
HASH = "proxy.agent.decode.hash_policy:"
HTTP2 = "proxy.agent.decode.http2:"
LOG = "proxy.agent.decode.access_log:"
MATCH = "proxy.agent.decode.matchers:"
MUTATIONS = "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove"

# (module of the message, message, the function that reads it, the fields that it takes)
SUPPORTED: list[tuple[str, str, str, str]] = [
    ("config.bootstrap.v3.bootstrap", "Bootstrap", "proxy.agent.decode.bootstrap:_read", "node admin static_resources dynamic_resources"),
    ("config.bootstrap.v3.bootstrap", "Bootstrap.StaticResources", "", "listeners clusters"),
    ("config.bootstrap.v3.bootstrap", "Admin", "", "address"),
    ("config.core.v3.base", "Node", "proxy.agent.decode.bootstrap:_node", "id cluster metadata locality"),
    ("config.listener.v3.listener", "Listener", LDS + "read_listener", "name address filter_chains metadata traffic_direction"),
    ("config.listener.v3.listener_components", "FilterChain", LDS + "_filter_chain", "name metadata filters transport_socket transport_socket_connect_timeout"),
    ("extensions.filters.network.http_connection_manager.v3.http_connection_manager", "HttpConnectionManager", HCM + "read_http_connection_manager",
     "codec_type stat_prefix rds route_config http_filters tracing common_http_protocol_options server_name max_request_headers_kb stream_idle_timeout "
     "request_headers_timeout drain_timeout access_log use_remote_address generate_request_id preserve_external_request_id forward_client_cert_details "
     "set_current_client_cert_details http_protocol_options server_header_transformation request_timeout delayed_close_timeout xff_num_trusted_hops "
     "skip_xff_append via always_set_request_id_in_response normalize_path merge_slashes path_with_escaped_slashes_action strip_matching_host_port "
     "strip_any_host_port upgrade_configs http2_protocol_options"),
    ("extensions.filters.network.http_connection_manager.v3.http_connection_manager", "HttpConnectionManager.UpgradeConfig", "", "upgrade_type enabled"),
    ("extensions.filters.network.http_connection_manager.v3.http_connection_manager", "HttpConnectionManager.SetCurrentClientCertDetails", "", "subject cert dns uri"),
    ("config.core.v3.protocol", "HttpProtocolOptions", "", "idle_timeout max_connection_duration max_headers_count max_response_headers_kb max_stream_duration "
     "headers_with_underscores_action max_requests_per_connection"),
    ("config.core.v3.protocol", "Http1ProtocolOptions", "", "allow_absolute_url accept_http_10 default_host_for_http_10"),
    ("config.core.v3.protocol", "Http2ProtocolOptions", HTTP2 + "read_http2_options",
     "hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size allow_connect max_outbound_frames "
     "max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream "
     "max_inbound_window_update_frames_per_data_frame_sent stream_error_on_invalid_http_messaging override_stream_error_on_invalid_http_message "
     "connection_keepalive"),
    ("config.core.v3.protocol", "KeepaliveSettings", HTTP2 + "_keepalive", "interval timeout interval_jitter connection_idle_interval"),
    ("extensions.filters.network.http_connection_manager.v3.http_connection_manager", "HttpFilter", "", "name typed_config"),
    ("extensions.filters.http.local_ratelimit.v3.local_rate_limit", "LocalRateLimit", "proxy.agent.decode.rate_limit:read_local_rate_limit",
     "stat_prefix status token_bucket filter_enabled filter_enforced request_headers_to_add_when_not_enforced response_headers_to_add descriptors stage "
     "local_rate_limit_per_downstream_connection enable_x_ratelimit_headers vh_rate_limits always_consume_default_token_bucket "
     "rate_limited_as_resource_exhausted rate_limits max_dynamic_descriptors"),
    ("type.v3.token_bucket", "TokenBucket", "proxy.agent.decode.rate_limit:_bucket", "max_tokens tokens_per_fill fill_interval"),
    ("config.route.v3.route_components", "RateLimit", "proxy.agent.decode.rate_limit:_rate_limit", "stage actions"),
    ("extensions.filters.http.fault.v3.fault", "HTTPFault", "proxy.agent.decode.fault:read_fault",
     "delay abort upstream_cluster headers downstream_nodes max_active_faults filter_metadata"),
    ("extensions.filters.http.fault.v3.fault", "FaultAbort", "proxy.agent.decode.fault:_abort", "http_status grpc_status header_abort percentage"),
    ("extensions.filters.common.fault.v3.fault", "FaultDelay", "proxy.agent.decode.fault:_delay", "fixed_delay header_delay percentage"),
    ("config.core.v3.base", "RuntimeFractionalPercent", "", "default_value runtime_key"),
    ("config.core.v3.base", "HeaderValueOption", "proxy.agent.decode.header_options:_option", "header append append_action keep_empty_value"),
    ("config.core.v3.base", "HeaderValue", "", "key value"),
    ("extensions.filters.network.tcp_proxy.v3.tcp_proxy", "TcpProxy", "proxy.agent.decode.tcp_proxy:read_tcp_proxy",
     "stat_prefix cluster weighted_clusters access_log idle_timeout max_connect_attempts max_downstream_connection_duration"),
    ("config.route.v3.route", "RouteConfiguration", RDS + "read_route_configuration", "name virtual_hosts ignore_port_in_host_matching most_specific_header_mutations_wins typed_per_filter_config " + MUTATIONS),
    ("config.route.v3.route_components", "VirtualHost", RDS + "_virtual_host", "name domains routes metadata typed_per_filter_config rate_limits " + MUTATIONS),
    ("config.route.v3.route_components", "Route", RDS + "_route", "name match route direct_response metadata typed_per_filter_config " + MUTATIONS),
    ("config.route.v3.route_components", "RouteMatch", RDS + "_match", "prefix path safe_regex path_separated_prefix connect_matcher case_sensitive headers query_parameters grpc"),
    ("config.route.v3.route_components", "RouteAction", RDS + "_forward", "cluster weighted_clusters timeout retry_policy prefix_rewrite host_rewrite_literal auto_host_rewrite idle_timeout max_stream_duration upgrade_configs hash_policy metadata_match rate_limits include_vh_rate_limits"),
    ("config.route.v3.route_components", "RouteAction.HashPolicy", HASH + "_policy", "header cookie connection_properties query_parameter terminal"),
    ("config.route.v3.route_components", "RouteAction.HashPolicy.Header", "", "header_name"),
    ("config.route.v3.route_components", "RouteAction.HashPolicy.Cookie", HASH + "_cookie", "name ttl path attributes"),
    ("config.route.v3.route_components", "RouteAction.HashPolicy.CookieAttribute", "", "name value"),
    ("config.route.v3.route_components", "RouteAction.UpgradeConfig", "", "upgrade_type enabled connect_config"),
    ("config.route.v3.route_components", "RouteAction.UpgradeConfig.ConnectConfig", "", ""),
    ("config.route.v3.route_components", "RouteMatch.ConnectMatcher", "", ""),
    ("config.route.v3.route_components", "RouteAction.MaxStreamDuration", "", "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset"),
    ("config.route.v3.route_components", "RetryPolicy", RETRY + "read_retry_policy", "retry_on num_retries retry_host_predicate host_selection_retry_max_attempts per_try_timeout retriable_status_codes retry_back_off rate_limited_retry_back_off"),
    ("config.route.v3.route_components", "DirectResponseAction", RDS + "_direct_response", "status body"),
    ("config.route.v3.route_components", "HeaderMatcher", MATCH + "decode_header_matcher", "name string_match present_match invert_match treat_missing_header_as_empty"),
    ("config.route.v3.route_components", "QueryParameterMatcher", MATCH + "decode_query_parameter_matcher", "name string_match present_match"),
    ("type.matcher.v3.string", "StringMatcher", MATCH + "decode_string_matcher", "exact prefix suffix contains safe_regex ignore_case"),
    ("type.matcher.v3.regex", "RegexMatcher", MATCH + "decode_regex", "google_re2 regex"),
    ("config.core.v3.base", "DataSource", MATCH + "decode_data", "filename inline_bytes inline_string"),
    ("config.cluster.v3.cluster", "Cluster", CDS + "read_cluster",
     "name type connect_timeout lb_policy ring_hash_lb_config maglev_lb_config least_request_lb_config round_robin_lb_config common_lb_config lb_subset_config load_assignment metadata transport_socket circuit_breakers outlier_detection health_checks ignore_health_on_host_removal typed_extension_protocol_options "
     "http2_protocol_options"),  # the last one is deprecated
    ("config.cluster.v3.cluster", "Cluster.RingHashLbConfig", BALANCE + "_ring", "minimum_ring_size maximum_ring_size hash_function"),
    ("config.cluster.v3.cluster", "Cluster.MaglevLbConfig", BALANCE + "_maglev", "table_size"),
    ("config.cluster.v3.cluster", "Cluster.LeastRequestLbConfig", BALANCE + "_least_request", "choice_count slow_start_config"),
    ("config.cluster.v3.cluster", "Cluster.RoundRobinLbConfig", BALANCE + "_slow_start", "slow_start_config"),
    ("config.cluster.v3.cluster", "Cluster.SlowStartConfig", "", "slow_start_window aggression min_weight_percent"),
    ("config.cluster.v3.cluster", "Cluster.LbSubsetConfig", BALANCE + "_subsets", "fallback_policy default_subset subset_selectors"),
    ("config.cluster.v3.cluster", "Cluster.LbSubsetConfig.LbSubsetSelector", "", "keys fallback_policy fallback_keys_subset"),
    ("config.cluster.v3.cluster", "Cluster.CommonLbConfig", BALANCE + "_common", "healthy_panic_threshold locality_weighted_lb_config consistent_hashing_lb_config"),
    ("config.cluster.v3.cluster", "Cluster.CommonLbConfig.ConsistentHashingLbConfig", "", "use_hostname_for_hashing"),
    ("config.cluster.v3.circuit_breaker", "CircuitBreakers", CDS + "_circuit_breakers", "thresholds"),
    ("config.cluster.v3.circuit_breaker", "CircuitBreakers.Thresholds", "", "priority max_connections max_pending_requests max_requests max_retries"),
    ("config.cluster.v3.outlier_detection", "OutlierDetection", "proxy.agent.decode.outlier:read_outlier_detection",
     "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx enforcing_success_rate success_rate_minimum_hosts "
     "success_rate_request_volume success_rate_stdev_factor consecutive_gateway_failure enforcing_consecutive_gateway_failure "
     "split_external_local_origin_errors consecutive_local_origin_failure enforcing_consecutive_local_origin_failure "
     "enforcing_local_origin_success_rate failure_percentage_threshold enforcing_failure_percentage enforcing_failure_percentage_local_origin "
     "failure_percentage_minimum_hosts failure_percentage_request_volume max_ejection_time max_ejection_time_jitter "
     "successful_active_health_check_uneject_host always_eject_one_host"),
    ("config.core.v3.health_check", "HealthCheck", CHECK + "_read",
     "timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold healthy_threshold alt_port reuse_connection "
     "http_health_check tcp_health_check grpc_health_check no_traffic_interval no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval "
     "healthy_edge_interval tls_options"),
    ("config.core.v3.health_check", "HealthCheck.HttpHealthCheck", CHECK + "_http",
     "host path request_headers_to_add expected_statuses retriable_statuses codec_client_type method"),
    ("config.core.v3.health_check", "HealthCheck.TcpHealthCheck", "", "send receive"),
    ("config.core.v3.health_check", "HealthCheck.GrpcHealthCheck", "", "service_name authority initial_metadata"),
    ("config.core.v3.health_check", "HealthCheck.Payload", CHECK + "_payload", "text binary"),
    ("config.core.v3.health_check", "HealthCheck.TlsOptions", CHECK + "_alpn", "alpn_protocols"),
    ("config.endpoint.v3.endpoint", "ClusterLoadAssignment", EDS + "_read_resource", "cluster_name endpoints policy"),
    ("config.endpoint.v3.endpoint", "ClusterLoadAssignment.Policy", "", "overprovisioning_factor"),
    ("config.core.v3.base", "Locality", "", "region zone sub_zone"),
    ("config.endpoint.v3.endpoint_components", "LocalityLbEndpoints", "", "locality metadata lb_endpoints load_balancing_weight priority"),
    ("config.endpoint.v3.endpoint_components", "LbEndpoint", EDS + "_endpoint", "endpoint health_status metadata load_balancing_weight"),
    ("config.endpoint.v3.endpoint_components", "Endpoint", "", "address hostname health_check_config"),
    ("config.endpoint.v3.endpoint_components", "Endpoint.HealthCheckConfig", "", "port_value hostname disable_active_health_check"),
    ("config.core.v3.address", "SocketAddress", "", "protocol address port_value"),
    ("config.accesslog.v3.accesslog", "AccessLog", LOG + "decode_access_log", "name typed_config"),
    ("extensions.access_loggers.file.v3.file", "FileAccessLog", "", "path log_format"),
    ("config.core.v3.substitution_format_string", "SubstitutionFormatString", "", "text_format json_format text_format_source"),
    ("extensions.transport_sockets.tls.v3.tls", "CommonTlsContext", TLS + "_validation", "validation_context combined_validation_context validation_context_sds_secret_config"),
    ("extensions.transport_sockets.tls.v3.common", "CertificateValidationContext", TLS + "_san_matchers", "match_typed_subject_alt_names"),
    ("extensions.transport_sockets.tls.v3.common", "SubjectAltNameMatcher", "", "san_type matcher"),
    ("extensions.transport_sockets.tls.v3.secret", "SdsSecretConfig", TLS + "_sds_name", "name sds_config"),
]  # fmt: skip
READERS = [row for row in SUPPORTED if row[2]]
EXTRA: dict[str, Callable[..., Any]] = {
    "_virtual_host": lambda f: lambda r: f(r, {}),
    "_endpoint": lambda f: lambda r: f(r, True, NO_LOCALITY),
    "_common": lambda f: lambda r: f(r, True),
    "_cookie": lambda f: lambda r: f(r, False),
}


def message_class(module: str, name: str) -> type[Message]:
    found: Any = import_module(f"envoy.{module}_pb2")
    for part in name.split("."):
        found = getattr(found, part)
    return found


def is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def set_field(message: Any, field: Any) -> None:
    """Make a field present, with the least content that is not its default."""
    if is_map(field):
        value = field.message_type.fields_by_name["value"]
        target = getattr(message, field.name)
        if value.message_type is None:
            target["k"] = "v"
        else:
            target["k"].SetInParent()
    elif field.is_repeated:
        if field.message_type is not None:
            getattr(message, field.name).add()
        else:
            getattr(message, field.name).append(scalar(field))
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, scalar(field))


def scalar(field: Any) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return b"x" if field.type == FieldDescriptor.TYPE_BYTES else "x"
    if field.enum_type is not None:
        return max(field.enum_type.values_by_number)
    return True if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else 1


def problems(function: str, message: Message) -> list[tuple[str, str]]:
    module, _, name = function.partition(":")
    read = getattr(import_module(module), name)
    context = Context(secrets=Secrets())
    reader = Reader(message, "top", context)
    EXTRA.get(name, lambda f: f)(read)(reader)
    reader.done()
    return context.problems


@pytest.mark.parametrize(("module", "name", "function", "taken"), READERS, ids=[row[1] for row in READERS])
def test_a_field_is_taken_or_refused(module: str, name: str, function: str, taken: str) -> None:
    cls = message_class(module, name)
    refused = []
    for field in cls.DESCRIPTOR.fields:
        message = cls()
        set_field(message, field)
        if (f"top.{field.name}", "this field is not supported") in problems(function, message):
            refused.append(field.name)
    assert sorted(f.name for f in cls.DESCRIPTOR.fields if f.name not in refused) == sorted(taken.split())


def test_fields_deep_below_are_refused_where_they_stand() -> None:
    """Every message that a whole bootstrap decodes: one unsupported field in it is found, with its path."""
    taken = {message_class(m, n).DESCRIPTOR.full_name: set(fields.split()) for m, n, _, fields in SUPPORTED}
    context = Context(secrets=Secrets())
    message = parse(json.loads(json.dumps(bootstrap())), "envoy.config.bootstrap.v3.Bootstrap", context)
    tried = 0
    for place, inner in list(walk(message)):
        for field in inner.DESCRIPTOR.fields:
            names = taken.get(inner.DESCRIPTOR.full_name)
            if names is None or field.name in names or field.containing_oneof is not None:
                continue
            set_field(inner, field)
            found = problems("proxy.agent.decode.bootstrap:_read", message)
            assert [path for path, _ in found] == [f"top.{place}.{field.name}".replace("..", ".")]
            inner.ClearField(field.name)
            tried += 1
    assert tried > 100


def walk(message: Message, place: str = "") -> Any:
    yield place, message
    for field, value in message.ListFields():
        if field.message_type is None or is_map(field):
            continue
        for i, inner in enumerate(value if field.is_repeated else [value]):
            yield from walk(inner, f"{place}.{field.name}" + (f"[{i}]" if field.is_repeated else ""))


def test_what_a_newer_proto_has_is_refused() -> None:
    cls = message_class("config.route.v3.route_components", "RetryPolicy")
    message = cls.FromString(b"\xfa\x3f\x01x" + cls(retry_on="reset").SerializeToString())
    assert problems(RETRY + "read_retry_policy", message) == [("top", "field number 1023 is not known to this version")]
