"""HttpConnectionManager (envoy.extensions.filters.network.http_connection_manager.v3)."""

from __future__ import annotations

from typing import cast

from proxy.agent.decode import types
from proxy.agent.decode.access_log import decode_access_log
from proxy.agent.decode.matchers import decode_ads
from proxy.agent.decode.rds import read_route_configuration
from proxy.agent.decode.reader import Reader
from proxy.config.listener import ClientCertDetails, HttpConnectionManager, HttpFilter
from proxy.config.route import RouteConfiguration

_CLIENT_CERT_DETAILS: dict[str, ClientCertDetails] = {
    "SANITIZE": "SANITIZE",
    "FORWARD_ONLY": "FORWARD_ONLY",
    "APPEND_FORWARD": "APPEND_FORWARD",
    "SANITIZE_SET": "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY": "ALWAYS_FORWARD_ONLY",
}


def read_http_connection_manager(reader: Reader) -> HttpConnectionManager:
    """The one terminal network filter of a listener that speaks HTTP."""
    reader.enum("codec_type", {"AUTO": None, "HTTP1": None})
    route_config, rds = _routes(reader)
    logs = (decode_access_log(r) for r in reader.children("access_log"))
    options = reader.child("common_http_protocol_options")
    idle_timeout, max_headers_count = 3600.0, 100
    if options is not None:
        idle_timeout = options.seconds("idle_timeout", idle_timeout)
        max_headers_count = options.integer("max_headers_count", max_headers_count, 1, 2**32 - 1)
    return HttpConnectionManager(
        stat_prefix=reader.required("stat_prefix"),
        route_config=route_config,
        rds=rds,
        http_filters=_http_filters(reader),
        access_logs=tuple(log for log in logs if log is not None),
        tracing=reader.child("tracing") is not None,  # its presence counts; any field in it is unsupported
        generate_request_id=reader.wrapped("generate_request_id", True),
        preserve_external_request_id=reader.value("preserve_external_request_id"),
        use_remote_address=reader.wrapped("use_remote_address", False),
        server_name=reader.ascii("server_name") or "pillion",
        forward_client_cert_details=reader.enum("forward_client_cert_details", _CLIENT_CERT_DETAILS),
        set_current_client_cert_details=_client_cert_parts(reader),
        idle_timeout=idle_timeout,
        stream_idle_timeout=reader.seconds("stream_idle_timeout", 300.0),
        request_headers_timeout=reader.seconds("request_headers_timeout", 0.0),
        drain_timeout=reader.seconds("drain_timeout", 5.0),
        max_request_headers_bytes=reader.integer("max_request_headers_kb", 60, 1, 8192) * 1024,
        max_headers_count=max_headers_count,
    )


def _routes(reader: Reader) -> tuple[RouteConfiguration | None, str | None]:
    kind = reader.one_of("route_specifier", "route_config", "rds")
    if kind == "route_config" and (inline := reader.child("route_config")):
        return read_route_configuration(inline), None
    if kind == "rds" and (by_name := reader.child("rds")):
        decode_ads(by_name.child("config_source"), by_name, "config_source", "a route configuration by rds")
        return None, by_name.required("route_config_name")
    return None, None


def _http_filters(reader: Reader) -> tuple[HttpFilter, ...]:
    """The filters before the router. Envoy: the router is the last one, and it is always there."""
    entries = reader.children("http_filters")
    names: set[str] = set()
    last = ""
    for entry in entries:
        name = entry.required("name")
        if name and name in names:
            entry.error(f"{name!r} is the name of another filter", "name")
        names.add(name)
        if entry.which("config_type") == "config_discovery":
            last = "unknown"
            continue  # reported as unsupported by done()
        found = entry.any("typed_config", "filter", (types.ROUTER,))
        if last == types.ROUTER:
            entry.error("no filter can stand behind the router")
        last = found[0] if found else "unknown"
    if last != types.ROUTER:
        reader.error(f"must end with the router (type.googleapis.com/{types.ROUTER})", "http_filters")
    return ()


def _client_cert_parts(reader: Reader) -> tuple[str, ...]:
    inner = reader.child("set_current_client_cert_details")
    if inner is None:
        return ()
    # Envoy's order in x-forwarded-client-cert; `chain` is reported as unsupported by done().
    asked = {
        "cert": cast(bool, inner.value("cert")),
        "subject": inner.wrapped("subject", False),
        "uri": inner.value("uri"),
        "dns": inner.value("dns"),
    }
    return tuple(part for part, wanted in asked.items() if wanted)
