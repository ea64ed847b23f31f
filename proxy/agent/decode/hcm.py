"""HttpConnectionManager (envoy.extensions.filters.network.http_connection_manager.v3)."""

from __future__ import annotations

from typing import cast

from proxy.agent.decode.access_log import decode_access_log
from proxy.agent.decode.filters import read_http_filters
from proxy.agent.decode.http2 import read_http2_options
from proxy.agent.decode.matchers import decode_ads
from proxy.agent.decode.rds import read_route_configuration
from proxy.agent.decode.reader import Reader
from proxy.agent.decode.upgrades import read_upgrades
from proxy.config.listener import (
    ClientCertDetails,
    Codec,
    EscapedSlashesAction,
    HttpConnectionManager,
    ServerHeader,
    UnderscoresAction,
)
from proxy.config.route import RouteConfiguration

_CODECS: dict[str, Codec] = {"AUTO": "AUTO", "HTTP1": "HTTP1", "HTTP2": "HTTP2"}
_CLIENT_CERT_DETAILS: dict[str, ClientCertDetails] = {
    "SANITIZE": "SANITIZE",
    "FORWARD_ONLY": "FORWARD_ONLY",
    "APPEND_FORWARD": "APPEND_FORWARD",
    "SANITIZE_SET": "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY": "ALWAYS_FORWARD_ONLY",
}

_SERVER_HEADER: dict[str, ServerHeader] = {
    "OVERWRITE": "OVERWRITE",
    "APPEND_IF_ABSENT": "APPEND_IF_ABSENT",
    "PASS_THROUGH": "PASS_THROUGH",
}
_UNDERSCORES: dict[str, UnderscoresAction] = {
    "ALLOW": "ALLOW",
    "REJECT_REQUEST": "REJECT_REQUEST",
    "DROP_HEADER": "DROP_HEADER",
}
_ESCAPED_SLASHES: dict[str, EscapedSlashesAction] = {
    "IMPLEMENTATION_SPECIFIC_DEFAULT": "KEEP_UNCHANGED",  # Envoy's, but for a runtime key
    "KEEP_UNCHANGED": "KEEP_UNCHANGED",
    "REJECT_REQUEST": "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT": "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD": "UNESCAPE_AND_FORWARD",
}
_UINT32 = 2**32 - 1


def read_http_connection_manager(reader: Reader) -> HttpConnectionManager:
    """The one terminal network filter of a listener that speaks HTTP."""
    route_config, rds = _routes(reader)
    logs = (decode_access_log(r) for r in reader.children("access_log"))
    common = _or_empty(reader, "common_http_protocol_options")
    http1 = _or_empty(reader, "http_protocol_options")
    strip = _strip_port(reader)
    return HttpConnectionManager(
        stat_prefix=reader.required("stat_prefix"),
        route_config=route_config,
        rds=rds,
        http_filters=read_http_filters(reader),
        access_logs=tuple(log for log in logs if log is not None),
        tracing=reader.child("tracing") is not None,  # its presence counts; any field in it is unsupported
        generate_request_id=reader.wrapped("generate_request_id", True),
        preserve_external_request_id=reader.value("preserve_external_request_id"),
        always_set_request_id_in_response=reader.value("always_set_request_id_in_response"),
        use_remote_address=reader.wrapped("use_remote_address", False),
        xff_num_trusted_hops=reader.value("xff_num_trusted_hops"),
        skip_xff_append=reader.value("skip_xff_append"),
        via=reader.ascii("via"),
        upgrades=frozenset(name for name, enabled in read_upgrades(reader)[0] if enabled),
        server_name=reader.ascii("server_name") or "pillion",
        server_header_transformation=reader.enum("server_header_transformation", _SERVER_HEADER),
        forward_client_cert_details=reader.enum("forward_client_cert_details", _CLIENT_CERT_DETAILS),
        set_current_client_cert_details=_client_cert_parts(reader),
        idle_timeout=common.seconds("idle_timeout", 3600.0),
        stream_idle_timeout=reader.seconds("stream_idle_timeout", 300.0),
        # Envoy's default is none; ours is the model's: a head must end some time.
        request_headers_timeout=reader.seconds("request_headers_timeout", 60.0),
        request_timeout=reader.seconds("request_timeout", 0.0),
        max_stream_duration=common.seconds("max_stream_duration", 0.0),
        max_connection_duration=common.seconds("max_connection_duration", 0.0),
        max_requests_per_connection=common.integer("max_requests_per_connection", 0, 0, _UINT32),
        drain_timeout=reader.seconds("drain_timeout", 5.0),
        delayed_close_timeout=reader.seconds("delayed_close_timeout", 1.0),
        max_request_headers_bytes=reader.integer("max_request_headers_kb", 60, 1, 8192) * 1024,
        max_headers_count=common.integer("max_headers_count", 100, 1, _UINT32),
        headers_with_underscores_action=common.enum("headers_with_underscores_action", _UNDERSCORES),
        normalize_path=reader.wrapped("normalize_path", False),
        merge_slashes=reader.value("merge_slashes"),
        path_with_escaped_slashes_action=reader.enum("path_with_escaped_slashes_action", _ESCAPED_SLASHES),
        strip_matching_host_port=strip == "strip_matching_host_port",
        strip_any_host_port=strip == "strip_any_host_port",
        allow_absolute_url=http1.wrapped("allow_absolute_url", True),
        accept_http_10=http1.value("accept_http_10"),
        default_host_for_http_10=_host(http1, "default_host_for_http_10"),
        codec=reader.enum("codec_type", _CODECS),
        http2=read_http2_options(reader.child("http2_protocol_options")),
    )


def _routes(reader: Reader) -> tuple[RouteConfiguration | None, str | None]:
    kind = reader.one_of("route_specifier", "route_config", "rds")
    if kind == "route_config" and (inline := reader.child("route_config")):
        return read_route_configuration(inline), None
    if kind == "rds" and (by_name := reader.child("rds")):
        decode_ads(by_name.child("config_source"), by_name, "config_source", "a route configuration by rds")
        return None, by_name.required("route_config_name")
    return None, None


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


def _or_empty(reader: Reader, name: str) -> Reader:
    """The Reader of a message field; of an empty message when it is not set."""
    found = reader.child(name)
    return found if found is not None else Reader(type(getattr(reader.message, name))(), reader.path, reader.context)


def _strip_port(reader: Reader) -> str | None:
    """Which of the two ways of stripping the port of Host is asked for; Envoy has them exclude each other."""
    matching, any_port = reader.value("strip_matching_host_port"), reader.value("strip_any_host_port")
    if matching and any_port:
        reader.error("cannot be set together with strip_any_host_port", "strip_matching_host_port")
    return "strip_any_host_port" if any_port else "strip_matching_host_port" if matching else None


def _host(reader: Reader, name: str) -> str:
    host = reader.ascii(name)
    if any(character in host for character in " ,/@?#"):
        reader.error(f"{host!r} is not a host", name)
    return host
