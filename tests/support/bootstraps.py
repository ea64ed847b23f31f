"""Small Envoy bootstraps as plain values, for tests to change one thing in."""

from __future__ import annotations

import copy
from typing import Any

T = "type.googleapis.com/"
HCM = T + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = T + "envoy.extensions.filters.http.router.v3.Router"
FILE_LOG = T + "envoy.extensions.access_loggers.file.v3.FileAccessLog"
STDOUT_LOG = T + "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
STDERR_LOG = T + "envoy.extensions.access_loggers.stream.v3.StderrAccessLog"
DOWNSTREAM_TLS = T + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
UPSTREAM_TLS = T + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
LUA = T + "envoy.extensions.filters.http.lua.v3.Lua"


def address(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def endpoint(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    return {"endpoint": {"address": address(port, host)}}


def cluster(name: str = "app", **more: Any) -> dict[str, Any]:
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(8080)]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment, **more}


def bootstrap() -> dict[str, Any]:
    """One listener, one route to one static cluster; a fresh copy each time."""
    hcm = {
        "@type": HCM,
        "stat_prefix": "hop",
        "route_config": {
            "name": "r",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                }
            ],
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    listener = {
        "name": "hop",
        "address": address(15001),
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}],
    }
    return {"node": {"id": "n"}, "static_resources": {"listeners": [listener], "clusters": [cluster()]}}


def parts(values: dict[str, Any]) -> dict[str, Any]:
    """The places of a bootstrap() that tests change, by short names; the values themselves, not copies."""
    resources = values["static_resources"]
    listener = resources["listeners"][0]
    chain = listener["filter_chains"][0]
    hcm = chain["filters"][0]["typed_config"]
    host = hcm["route_config"]["virtual_hosts"][0]
    return {
        "root": values,
        "listener": listener,
        "chain": chain,
        "hcm": hcm,
        "routes": hcm["route_config"],
        "host": host,
        "route": host["routes"][0],
        "match": host["routes"][0]["match"],
        "action": host["routes"][0]["route"],
        "cluster": resources["clusters"][0],
        "assignment": resources["clusters"][0]["load_assignment"],
        "lb_endpoint": resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0],
    }


def changed(place: str, **fields: Any) -> dict[str, Any]:
    """A bootstrap() with fields set at a place of parts(); None removes a field."""
    values = copy.deepcopy(bootstrap())
    target = parts(values)[place]
    for name, value in fields.items():
        if value is None:
            target.pop(name)
        else:
            target[name] = value
    return values
