"""Bad bootstraps, each with the path that its error must name, and words that tell what to do."""

import json
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from tests.support.bootstraps import (
    FILE_LOG,
    HTTP_OPTIONS,
    LUA,
    ROUTER,
    STDOUT_LOG,
    UPSTREAM_TLS,
    address,
    bootstrap,
    changed,
    cluster,
    endpoint,
)

L = "static_resources.listeners[0]"
H = f"{L}.filter_chains[0].filters[0].typed_config"
V = f"{H}.route_config.virtual_hosts[0]"
R = f"{V}.routes[0]"
C = "static_resources.clusters[0]"
E = f"{C}.load_assignment.endpoints[0].lb_endpoints[0]"
O = f'{C}.typed_extension_protocol_options["{HTTP_OPTIONS}"]'  # noqa: E741


def static(**more: Any) -> dict[str, Any]:
    values = bootstrap()
    values["static_resources"].update(more)
    return values


def log(log_format: Any, kind: str = STDOUT_LOG, **more: Any) -> dict[str, Any]:
    config = {"@type": kind, "log_format": log_format}
    return changed("hcm", access_log=[{"name": "log", "typed_config": config, **more}])


def options(**fields: Any) -> dict[str, Any]:
    config = {"@type": "type.googleapis.com/" + HTTP_OPTIONS, **fields}
    return changed("cluster", typed_extension_protocol_options={HTTP_OPTIONS: config})


def weighted(*clusters: Any) -> dict[str, Any]:
    return changed("route", route={"weighted_clusters": {"clusters": list(clusters)}})


def router(**entry: Any) -> dict[str, Any]:
    return {"name": "router", "typed_config": {"@type": ROUTER}, **entry}


def upstream_tls(**fields: Any) -> dict[str, Any]:
    return changed("cluster", transport_socket={"name": "tls", "typed_config": {"@type": UPSTREAM_TLS, **fields}})


def header(**fields: Any) -> dict[str, Any]:
    return changed("match", headers=[{"name": "x", **fields}])


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    # names that are no fields, kinds that are wrong
    "unknown name": (changed("listener", nme=1), f"{L}.nme", "did you mean name?"),
    "unknown name in an Any": (changed("hcm", stat_prefixx="a"), f"{H}.stat_prefixx", "did you mean stat_prefix?"),
    "unknown at the root": (changed("root", static_resource={}), "static_resource", "is not a field"),
    "given twice": (changed("listener", statPrefix="a", stat_prefix="a"), f"{L}.stat_prefix", "given twice"),
    "list, not mapping": (changed("root", static_resources=[]), "static_resources", "expected a mapping"),
    "mapping, not list": (static(listeners={}), "static_resources.listeners", "expected a list"),
    "number, not string": (changed("hcm", stat_prefix=5), f"{H}.stat_prefix", "quote it"),
    "string, not bool": (changed("routes", ignore_port_in_host_matching="yes"), f"{H}.route_config.ignore_port_in_host_matching", "true or false"),
    "string, not number": (changed("lb_endpoint", load_balancing_weight="two"), f"{E}.load_balancing_weight", "whole number"),
    "bool for a number": (changed("lb_endpoint", load_balancing_weight=True), f"{E}.load_balancing_weight", "whole number"),
    "negative weight": (changed("lb_endpoint", load_balancing_weight=-1), f"{E}.load_balancing_weight", "within 0"),
    "no such enum value": (changed("cluster", type="STATICC"), f"{C}.type", "STRICT_DNS"),
    "no such enum number": (changed("cluster", type=77), f"{C}.type", "STRICT_DNS"),
    "bool for an enum": (changed("cluster", type=False), f"{C}.type", "STRICT_DNS"),
    "bytes that are none": (changed("route", route=None, direct_response={"status": 200, "body": {"inline_bytes": "a b"}}), f"{R}.direct_response.body.inline_bytes", "base64"),
    "not a duration": (changed("cluster", connect_timeout="1"), f"{C}.connect_timeout", "duration"),
    "a number for a duration": (changed("cluster", connect_timeout=1), f"{C}.connect_timeout", "1.5s"),
    "two of one oneof": (changed("match", path="/"), f"{R}.match", "oneof"),
    "Any without a type": (changed("chain", filters=[{"name": "x", "typed_config": {}}]), H, "@type"),
    "null in a list": (static(clusters=[None]), C, "expected a mapping"),
    # what Envoy does and Pillion does not
    "lua filter": (changed("hcm", http_filters=[{"name": "lua", "typed_config": {"@type": LUA}}, router()]), f"{H}.http_filters[0]", f"filter {LUA} is not supported"),
    "network filter": (changed("chain", filters=[{"name": "x", "typed_config": {"@type": "a/b.C"}}]), f"{L}.filter_chains[0].filters[0]", "filter a/b.C is not supported"),
    "alt_stat_name": (changed("cluster", alt_stat_name="a"), f"{C}.alt_stat_name", "not supported"),
    "filter chain match": (changed("chain", filter_chain_match={"server_names": ["a"]}), f"{L}.filter_chains[0].filter_chain_match", "not supported"),
    "listener filter": (changed("listener", listener_filters=[{"name": "x", "typed_config": {"@type": LUA}}]), f"{L}.listener_filters", "not supported"),
    "HTTP/3 upstream": (options(explicit_http_config={"http3_protocol_options": {}}), f"{O}.explicit_http_config.http3_protocol_options", "not supported"),
    "other protocol options": (changed("cluster", typed_extension_protocol_options={"a": {"@type": LUA}}), f'{C}.typed_extension_protocol_options["a"]', "not supported"),
    "HTTP/3 downstream": (changed("hcm", codec_type="HTTP3"), f"{H}.codec_type", "HTTP3 is not supported, only AUTO, HTTP1, HTTP2"),
    "redirect": (changed("route", redirect={"host_redirect": "a"}, route=None), f"{R}.redirect", "not supported"),
    "cluster_header": (changed("route", route={"cluster_header": "x"}), f"{R}.route.cluster_header", "not supported"),
    "hash policy": (changed("action", hash_policy=[{"filter_state": {"key": "a"}}]), f"{R}.route.hash_policy[0].filter_state", "not supported"),
    "another's balancing": (changed("cluster", lb_policy="CLUSTER_PROVIDED"), f"{C}.lb_policy", "CLUSTER_PROVIDED is not supported"),
    "logical dns": (changed("cluster", type="LOGICAL_DNS"), f"{C}.type", "LOGICAL_DNS is not supported"),
    "custom cluster": (changed("cluster", type=None, cluster_type={"name": "x"}), f"{C}.cluster_type", "not supported"),
    "custom health check": (changed("cluster", health_checks=[{"custom_health_check": {"name": "redis"}}]), f"{C}.health_checks[0].custom_health_check", "not supported"),
    "two health checks": (changed("cluster", health_checks=[{}, {}]), f"{C}.health_checks", "more than one"),
    "health check without an interval": (changed("cluster", health_checks=[{"timeout": "1s"}]), f"{C}.health_checks[0].interval", "required"),
    "health check of no kind": (changed("cluster", health_checks=[{"timeout": "1s"}]), f"{C}.health_checks[0]", "grpc_health_check"),
    "proximity": (changed("assignment", endpoints=[{"lb_endpoints": [endpoint(1)], "proximity": 1}]), f"{C}.load_assignment.endpoints[0].proximity", "not supported"),
    "router's own field": (changed("hcm", http_filters=[router(typed_config={"@type": ROUTER, "suppress_envoy_headers": True})]), f"{H}.http_filters[0].typed_config.suppress_envoy_headers", "not supported"),
    "disabled filter": (changed("hcm", http_filters=[router(disabled=True)]), f"{H}.http_filters[0].disabled", "not supported"),
    "tracing provider": (changed("hcm", tracing={"verbose": True}), f"{H}.tracing.verbose", "not supported"),
    "dynamic_resources": (changed("root", dynamic_resources={"lds_config": {"ads": {}}}), "dynamic_resources", "pillion proxy --service"),
    "layered_runtime": (changed("root", layered_runtime={"layers": [{"name": "a"}]}), "layered_runtime", "not supported"),
    "admin access log": (changed("root", admin={"address": address(1), "access_log_path": "/a"}), "admin.access_log_path", "not supported"),
    "static secrets": (static(secrets=[{"name": "a"}]), "static_resources.secrets", "not supported"),
    "rds in a file": (changed("hcm", route_config=None, rds={"route_config_name": "r", "config_source": {"ads": {}}}), f"{H}.rds.config_source", "inline"),
    "eds in a file": (changed("cluster", type="EDS", load_assignment=None, eds_cluster_config={"eds_config": {"ads": {}}}), f"{C}.eds_cluster_config.eds_config", "inline"),
    "high priority thresholds": (changed("cluster", circuit_breakers={"thresholds": [{"priority": "HIGH"}]}), f"{C}.circuit_breakers.thresholds[0].priority", "HIGH"),
    "outlier monitors": (changed("cluster", outlier_detection={"monitors": [{"name": "x"}]}), f"{C}.outlier_detection.monitors", "not supported"),
    "UDP": (changed("listener", address={"socket_address": {"address": "127.0.0.1", "port_value": 1, "protocol": "UDP"}}), f"{L}.address.socket_address.protocol", "UDP"),
    "two chains": (changed("listener", filter_chains=[{}, {}]), f"{L}.filter_chains", "more than one"),
    "environment variable": (changed("route", route=None, direct_response={"status": 200, "body": {"environment_variable": "HOME"}}), f"{R}.direct_response.body.environment_variable", "not supported"),
    "TLS match": (changed("match", tls_context={}), f"{R}.match.tls_context", "not supported"),
    "control character": (changed("cluster", name="a\nb"), f"{C}.name", "control characters"),
    "ALPN": (upstream_tls(common_tls_context={"alpn_protocols": [""]}), f"{C}.transport_socket.typed_config.common_tls_context.alpn_protocols[0]", "255"),
    "other type for options": (changed("cluster", typed_extension_protocol_options={HTTP_OPTIONS: {"@type": LUA}}), O, "must be a"),
    "range match": (header(range_match={"start": 1, "end": 2}), f"{R}.match.headers[0].range_match", "not supported"),
    # values out of range, references to nothing
    "port": (changed("listener", address=address(65536)), f"{L}.address.socket_address.port_value", "65535"),
    "no port": (changed("listener", address={"socket_address": {"address": "127.0.0.1"}}), f"{L}.address.socket_address.port_value", "required"),
    "named port": (changed("listener", address={"socket_address": {"address": "127.0.0.1", "named_port": "x"}}), f"{L}.address.socket_address.named_port", "not supported"),
    "host name to listen on": (changed("listener", address=address(1, "localhost")), f"{L}.address.socket_address.address", "IP address"),
    "host name, STATIC": (changed("assignment", endpoints=[{"lb_endpoints": [endpoint(1, "localhost")]}]), f"{E}.endpoint.address.socket_address.address", "IP address"),
    "no address": (changed("listener", address=None), L, "socket_address"),
    "weight 0": (changed("lb_endpoint", load_balancing_weight=0), f"{E}.load_balancing_weight", "within 1"),
    "no endpoint": (changed("assignment", endpoints=[]), f"{C}.load_assignment.endpoints", "no endpoint"),
    "no load assignment": (changed("cluster", load_assignment=None), f"{C}.load_assignment", "required"),
    "label is a number": (changed("lb_endpoint", metadata={"filter_metadata": {"pillion": {"a": 1}}}), f'{E}.metadata.filter_metadata["pillion"].a', "string"),
    "connect timeout 0": (changed("cluster", connect_timeout="0s"), f"{C}.connect_timeout", "more than 0s"),
    "negative timeout": (changed("action", timeout="-1s"), f"{R}.route.timeout", "at least 0s"),
    "headers, none": (changed("hcm", common_http_protocol_options={"max_headers_count": 0}), f"{H}.common_http_protocol_options.max_headers_count", "within 1"),
    "header size": (changed("hcm", max_request_headers_kb=8193), f"{H}.max_request_headers_kb", "8192"),
    "ejection percent": (changed("cluster", outlier_detection={"max_ejection_percent": 101}), f"{C}.outlier_detection.max_ejection_percent", "100"),
    "enforced by half as much again": (changed("cluster", outlier_detection={"enforcing_success_rate": 150}), f"{C}.outlier_detection.enforcing_success_rate", "100"),
    "no interval": (changed("cluster", outlier_detection={"interval": "0s"}), f"{C}.outlier_detection.interval", "more than 0s"),
    "ejection times": (changed("cluster", outlier_detection={"base_ejection_time": "2s", "max_ejection_time": "1s"}), f"{C}.outlier_detection.max_ejection_time", "base_ejection_time, which is 2s"),
    "status": (changed("route", route=None, direct_response={"status": 99}), f"{R}.direct_response.status", "200"),
    "long body": (changed("route", route=None, direct_response={"status": 200, "body": {"inline_string": "x" * 4097}}), f"{R}.direct_response.body", "4096"),
    "body from no file": (changed("route", route=None, direct_response={"status": 200, "body": {"filename": "/nowhere/x"}}), f"{R}.direct_response.body.filename", "cannot read /nowhere/x: No such file"),
    "regex": (changed("match", prefix=None, safe_regex={"regex": "("}), f"{R}.match.safe_regex.regex", "not one that RE2 takes"),
    "lookahead": (changed("match", prefix=None, safe_regex={"regex": "(?=a)"}), f"{R}.match.safe_regex.regex", "invalid perl operator"),
    "empty regex": (changed("match", prefix=None, safe_regex={}), f"{R}.match.safe_regex.regex", "required"),
    "regex in a header": (header(string_match={"safe_regex": {"regex": r"(a)\1"}}), f"{R}.match.headers[0].string_match.safe_regex.regex", "invalid escape sequence"),
    "empty prefix": (header(string_match={"prefix": ""}), f"{R}.match.headers[0].string_match.prefix", "required"),
    "no string matcher": (header(string_match={}), f"{R}.match.headers[0].string_match", "exact"),
    "no match": (changed("route", match=None), f"{R}.match", "required"),
    "no path": (changed("match", prefix=None), f"{R}.match", "prefix"),
    "separated prefix": (changed("match", prefix=None, path_separated_prefix="/a/"), f"{R}.match.path_separated_prefix", "slash"),
    "no action": (changed("route", route=None), R, "direct_response"),
    "empty cluster name": (changed("route", route={"cluster": ""}), f"{R}.route.cluster", "required"),
    "no cluster": (changed("route", route={}), f"{R}.route", "weighted_clusters"),
    "weights, none": (weighted(), f"{R}.route.weighted_clusters.clusters", "at least one"),
    "weights, sum 0": (weighted({"name": "app", "weight": 0}), f"{R}.route.weighted_clusters.clusters", "add up"),
    "weights, too much": (weighted({"name": "app", "weight": 2**32 - 1}, {"name": "app", "weight": 1}), f"{R}.route.weighted_clusters.clusters", "add up"),
    "weight missing": (weighted({"name": "app"}), f"{R}.route.weighted_clusters.clusters[0].weight", "required"),
    "retry word": (changed("action", retry_policy={"retry_on": "5xy"}), f"{R}.route.retry_policy.retry_on", "not a retry condition"),
    "retry later": (changed("action", retry_policy={"retry_on": "reset, retriable-headers"}), f"{R}.route.retry_policy.retry_on", "retriable-headers is not supported, only 5xx"),
    "retry back-off": (changed("action", retry_policy={"retry_on": "reset", "retry_back_off": {"base_interval": "1s", "max_interval": "0.5s"}}), f"{R}.route.retry_policy.retry_back_off.max_interval", "below base_interval"),
    "retry back-off without a base": (changed("action", retry_policy={"retry_on": "reset", "retry_back_off": {"max_interval": "1s"}}), f"{R}.route.retry_policy.retry_back_off.base_interval", "is required"),
    "retry host predicate": (changed("action", retry_policy={"retry_on": "reset", "retry_host_predicate": [{"name": "envoy.retry_host_predicates.omit_canary_hosts"}]}), f"{R}.route.retry_policy.retry_host_predicate[0].name", "previous_hosts"),
    "retry reset header": (changed("action", retry_policy={"retry_on": "5xx", "rate_limited_retry_back_off": {"reset_headers": [{"name": "x-reset"}]}}), f"{R}.route.retry_policy.rate_limited_retry_back_off.reset_headers[0].name", "Retry-After"),
    "our cluster metadata": (changed("cluster", metadata={"filter_metadata": {"pillion": {"lb_polcy": "PEAK_EWMA"}}}), f'{C}.metadata.filter_metadata["pillion"].lb_polcy', "lb_policy"),
    "our retry metadata": (changed("route", metadata={"filter_metadata": {"pillion": {"retry_when_safe": "reset"}}}), f'{R}.metadata.filter_metadata["pillion"].retry_when_safe', "retry_on_when_safe"),
    "our retry conditions": (changed("route", metadata={"filter_metadata": {"pillion": {"retry_on_when_safe": "rest"}}}), f'{R}.metadata.filter_metadata["pillion"].retry_on_when_safe', "'rest' is not a retry condition"),
    "domain twice": (changed("host", domains=["a", "A"]), f"{V}.domains[1]", "'all'"),
    "no domain": (changed("host", domains=[]), f"{V}.domains", "at least one"),
    "star inside": (changed("host", domains=["a.*.b"]), f"{V}.domains[0]", "wildcard"),
    "virtual host twice": (changed("routes", virtual_hosts=[{"name": "a", "domains": ["a"]}, {"name": "a", "domains": ["b"]}]), f"{H}.route_config.virtual_hosts[1].name", "another"),
    "cluster twice": (static(clusters=[cluster(), cluster()]), "static_resources.clusters[1].name", "another cluster"),
    "listener twice": (static(listeners=bootstrap()["static_resources"]["listeners"] * 2), "static_resources.listeners[1].name", "another listener"),
    "address twice": (static(listeners=[bootstrap()["static_resources"]["listeners"][0], {**bootstrap()["static_resources"]["listeners"][0], "name": "b"}]), "static_resources.listeners[1].address", "listener 'hop'"),
    "no listener": (static(listeners=[]), "static_resources", "at least one listener"),
    "no cluster by that name": (changed("action", cluster="nope"), "", "listener 'hop' refers to cluster 'nope', which does not exist"),
    "no stat_prefix": (changed("hcm", stat_prefix=None), f"{H}.stat_prefix", "required"),
    "no routes": (changed("hcm", route_config=None), H, "route_config"),
    "no filters": (changed("hcm", http_filters=[]), f"{H}.http_filters", "router"),
    "router not last": (changed("hcm", http_filters=[router(), router(name="b")]), f"{H}.http_filters[1]", "behind the router"),
    "filter name twice": (changed("hcm", http_filters=[router(), router()]), f"{H}.http_filters[1].name", "another filter"),
    "no network filter": (changed("chain", filters=[]), f"{L}.filter_chains[0].filters", "exactly one"),
    "no chain": (changed("listener", filter_chains=[]), f"{L}.filter_chains", "one filter chain"),
    "operator": (log({"text_format_source": {"inline_string": "%NOPE%"}}), f"{H}.access_log[0].typed_config.log_format.text_format_source", "NOPE"),
    "operator in JSON": (log({"json_format": {"a": "%NOPE%"}}), f"{H}.access_log[0].typed_config.log_format.json_format.a", "NOPE"),
    "nested JSON": (log({"json_format": {"a": {"b": "c"}}}), f"{H}.access_log[0].typed_config.log_format.json_format.a", "only strings"),
    "no log path": (log({"json_format": {"a": "b"}}, FILE_LOG), f"{H}.access_log[0].typed_config.path", "required"),
    "log filter": (log({"json_format": {"a": "b"}}, filter={"not_health_check_filter": {}}), f"{H}.access_log[0].filter", "not supported"),
    "grpc log": (log({}, LUA), f"{H}.access_log[0]", f"access log {LUA} is not supported"),
    "transport socket": (changed("cluster", transport_socket={"name": "x", "typed_config": {"@type": LUA}}), f"{C}.transport_socket", f"transport socket {LUA} is not supported"),
    "validation without a CA": (upstream_tls(common_tls_context={"validation_context": {}}), f"{C}.transport_socket.typed_config.common_tls_context.validation_context.trusted_ca", "required"),
    "TLS parameters": (upstream_tls(common_tls_context={"tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}), f"{C}.transport_socket.typed_config.common_tls_context.tls_params", "not supported"),
    "SDS in a file": (upstream_tls(common_tls_context={"tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {"ads": {}}}]}), f"{C}.transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs[0].sds_config", "inline"),
    "key file missing": (upstream_tls(common_tls_context={"tls_certificates": [{"certificate_chain": {"inline_string": "x"}, "private_key": {"filename": "/nowhere/x"}}]}), f"{C}.transport_socket.typed_config.common_tls_context.tls_certificates[0].private_key.filename", "cannot read /nowhere/x: No such file or directory"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_names_the_place(name: str) -> None:
    values, path, fragment = CASES[name]
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json")
    found = dict(reversed(caught.value.problems))
    assert path in found, caught.value.problems
    assert fragment in found[path]
    assert str(caught.value).startswith("boot.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "network filter",
        "transport socket",
        "TLS parameters",
        "range match",
        "redirect",
        "cluster_header",
        "custom cluster",
        "logical dns",
        "two chains",
        "HTTP/3 upstream",
        "HTTP/3 downstream",
        "rds in a file",
        "TLS match",
    ],
)
def test_allowed_or_not_nothing_may_come_to_mean_something_else(name: str) -> None:
    """Plaintext for TLS, a match that matches more, a listener without its filter."""
    values, path, _ = CASES[name]
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json", allow_unsupported=True)
    assert path in dict(caught.value.problems)


@pytest.mark.parametrize("text", ["a\r\nx: y", "a\x00", "\x7f", "é"])
def test_nothing_that_is_written_into_a_header_can_open_another(text: str) -> None:
    action = {"cluster": "app", "host_rewrite_literal": text, "prefix_rewrite": text}
    for values, places in (
        (changed("route", route=action), [f"{R}.route.prefix_rewrite", f"{R}.route.host_rewrite_literal"]),
        (changed("hcm", server_name=text), [f"{H}.server_name"]),
        (changed("hcm", via=text), [f"{H}.via"]),
        (
            changed("hcm", http_protocol_options={"default_host_for_http_10": text}),
            [f"{H}.http_protocol_options.default_host_for_http_10"],
        ),
        (
            changed("route", response_headers_to_add=[{"header": {"key": "x", "value": text}}]),
            [f"{R}.response_headers_to_add[0].header.value"],
        ),
        (changed("route", request_headers_to_remove=[text]), [f"{R}.request_headers_to_remove[0]"]),
        (changed("match", headers=[{"name": text}]), [f"{R}.match.headers[0].name"]),
    ):
        with pytest.raises(DecodeError) as caught:
            decode_bootstrap(json.dumps(values), "boot.json")
        assert {path for path, _ in caught.value.problems} == set(places)


def test_several_problems_are_told_at_once() -> None:
    values = changed("hcm", stat_prefix=None, add_user_agent=True, max_request_headers_kb=0)
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json")
    assert [path.rpartition(".")[2] for path, _ in caught.value.problems] == [
        "stat_prefix",
        "max_request_headers_kb",
        "add_user_agent",
    ]


def test_a_flood_of_problems_is_counted_not_listed() -> None:
    values = bootstrap()
    values["static_resources"]["clusters"] = [cluster(f"c{i}", alt_stat_name="x") for i in range(100)]
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json")
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == ("", "and 80 more")


def test_allow_unsupported_turns_what_envoy_knows_into_warnings() -> None:
    values = changed(
        "hcm", add_user_agent=True, http_filters=[{"name": "lua", "typed_config": {"@type": LUA}}, router()]
    )
    found = decode_bootstrap(json.dumps(values), "boot.json", allow_unsupported=True)
    assert found.warnings == (
        f"{H}.http_filters[0]: filter {LUA} is not supported",
        f"{H}.add_user_agent: this field is not supported",
    )
    assert "hop" in found.snapshot.listeners


def test_allow_unsupported_does_not_allow_what_is_wrong() -> None:
    with pytest.raises(DecodeError, match="stat_prefix: is required"):
        decode_bootstrap(json.dumps(changed("hcm", stat_prefix="")), "boot.json", allow_unsupported=True)
