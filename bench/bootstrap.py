"""The Envoy v3 bootstrap that Pillion and Envoy both run from: everything on that a sidecar in earnest has on.

Retries, outlier detection, an access log in JSON to a file, request ids, trace context. (Envoy has no tracing provider
here, so it passes `traceparent` on; Pillion also makes one where there is none.)
"""

from __future__ import annotations

from typing import Any

import yaml

from bench.sidecar import Sidecar, Tls

_TYPE = "type.googleapis.com/envoy.extensions."
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"},
}
_HTTP2 = {
    "@type": _TYPE + "upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}},
}
_LOG_FIELDS = {
    "start": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "traceparent": "%REQ(TRACEPARENT)%",
}
_RETRY = {"retry_on": "connect-failure,refused-stream,reset", "num_retries": 2}


def bootstrap(sidecar: Sidecar) -> str:
    """The file's text (YAML)."""
    chain: dict[str, Any] = {"filters": [_tcp() if sidecar.role == "tcp" else _http(sidecar)]}
    if sidecar.downstream is not None:
        chain["transport_socket"] = _tls("Downstream", sidecar.downstream, sidecar.http2)
    listener = {"name": "in", "address": _address(sidecar.listen), "filter_chains": [chain]}
    count = 0 if sidecar.role == "reply" else sidecar.clusters
    values = {
        "node": {"id": sidecar.name, "cluster": "bench"},
        "admin": {"address": _address(sidecar.admin)},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster(sidecar, number) for number in range(count)],
        },
    }
    return yaml.dump(values, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Writes what is used twice in full: anchors are legal, and nobody's example."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _http(sidecar: Sidecar) -> dict[str, Any]:
    log = {
        "@type": _TYPE + "access_loggers.file.v3.FileAccessLog",
        "path": str(sidecar.log),
        "log_format": {"json_format": _LOG_FIELDS},
    }
    manager = {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "generate_request_id": True,
        "tracing": {},
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}],
        "route_config": {"name": "routes", "virtual_hosts": [_host(sidecar, n) for n in range(sidecar.clusters)]},
        "http_filters": [_ROUTER],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _host(sidecar: Sidecar, number: int) -> dict[str, Any]:
    route: dict[str, Any] = {"match": {"prefix": "/"}}
    if sidecar.role == "reply":
        route["direct_response"] = {"status": 200, "body": {"inline_string": "ok"}}
    else:
        route["route"] = {"cluster": f"cluster-{number}", "timeout": "5s", "retry_policy": _RETRY}
    domains = [f"service-{number}"] if number else ["*"]
    return {"name": f"host-{number}", "domains": domains, "routes": [route]}


def _tcp() -> dict[str, Any]:
    proxy = {
        "@type": _TYPE + "filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "in",
        "cluster": "cluster-0",
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}


def _cluster(sidecar: Sidecar, number: int) -> dict[str, Any]:
    name = f"cluster-{number}"
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(sidecar.upstream)}}]}]
    found: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "outlier_detection": {"consecutive_5xx": 5},
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }
    if sidecar.upstream_tls is not None:
        found["transport_socket"] = _tls("Upstream", sidecar.upstream_tls, sidecar.http2)
    if sidecar.http2:
        found["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _HTTP2}
    return found


def _tls(side: str, tls: Tls, http2: bool) -> dict[str, Any]:
    common = {
        "tls_certificates": [
            {"certificate_chain": {"filename": str(tls.chain)}, "private_key": {"filename": str(tls.key)}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(tls.roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": tls.peer}}],
        },
        "alpn_protocols": ["h2" if http2 else "http/1.1"],
    }
    context: dict[str, Any] = {
        "@type": f"{_TYPE}transport_sockets.tls.v3.{side}TlsContext",
        "common_tls_context": common,
    }
    if side == "Downstream":
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
