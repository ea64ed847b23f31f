"""Envoy v3 bootstraps for one hop, which Envoy and Pillion both take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TYPES = "type.googleapis.com/envoy.extensions."
HCM = TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager"


def address(port: int) -> dict[str, Any]:
    """127.0.0.1:port as an Address."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def hop(
    listen: int,
    upstream: int,
    admin: int,
    *,
    name: str = "hop",
    downstream_tls: dict[str, Any] | None = None,
    upstream_tls: dict[str, Any] | None = None,
    manager: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A bootstrap: 127.0.0.1:listen → 127.0.0.1:upstream, everything routed; `manager` adds fields to the HCM."""
    router_type = {"@type": TYPES + "filters.http.router.v3.Router"}
    router = {"name": "envoy.filters.http.router", "typed_config": router_type}
    log_format = {
        "json_format": {
            "path": "%REQ(:PATH)%",
            "status": "%RESPONSE_CODE%",
            "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        }
    }
    log = {"@type": TYPES + "access_loggers.stream.v3.StdoutAccessLog", "log_format": log_format}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "10s"}}
    hcm = {
        "@type": HCM,
        "stat_prefix": name,
        "access_log": [{"name": "envoy.access_loggers.stdout", "typed_config": log}],
        "route_config": {
            "name": "r",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [router],
        **(manager or {}),
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]
    cluster: dict[str, Any] = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "upstream", "endpoints": endpoints},
    }
    if downstream_tls is not None:
        chain["transport_socket"] = downstream_tls
    if upstream_tls is not None:
        cluster["transport_socket"] = upstream_tls
    return {
        "node": {"id": name, "cluster": name},
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": address(listen), "filter_chains": [chain]}],
            "clusters": [cluster],
        },
    }


def tls(side: str, chain: Path, key: Path, roots: Path, peer: str) -> dict[str, Any]:
    """A transport socket from files; side is Downstream or Upstream, `peer` the exact URI SAN to accept."""
    san = {"san_type": "URI", "matcher": {"exact": peer}}
    common = {
        "tls_certificates": [{"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}],
        "validation_context": {
            "trusted_ca": {"filename": str(roots)},
            "match_typed_subject_alt_names": [san],
        },
    }
    config: dict[str, Any] = {
        "@type": f"{TYPES}transport_sockets.tls.v3.{side}TlsContext",
        "common_tls_context": common,
    }
    if side == "Downstream":
        config["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def write(directory: Path, name: str, bootstrap: dict[str, Any]) -> Path:
    """NAME.yaml in `directory`."""
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(bootstrap, sort_keys=False))
    return path
