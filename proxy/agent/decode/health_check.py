"""Active health checks of a cluster (envoy.config.core.v3.HealthCheck)."""

from __future__ import annotations

from proxy.agent.decode.header_options import read_plain_headers
from proxy.agent.decode.reader import Reader, join
from proxy.config.health_check import EndpointHealthCheck, GrpcCheck, HealthCheck, HttpCheck, TcpCheck

_UINT32 = 2**32 - 1
_METHODS = {
    "METHOD_UNSPECIFIED": "GET",
    **{name: name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")},
}


def read_health_checks(reader: Reader) -> HealthCheck | None:
    """The cluster's one health check, if it has one. Envoy, too, takes no more."""
    entries = reader.children("health_checks")
    if len(entries) > 1:
        reader.error("more than one is not supported", "health_checks")
    found = [_read(entry) for entry in entries]
    return found[0] if found else None


def read_endpoint_health_check(endpoint: Reader) -> EndpointHealthCheck | None:
    """Endpoint.health_check_config."""
    reader = endpoint.child("health_check_config")
    if reader is None:
        return None
    port = reader.value("port_value")
    if port > 65535:
        reader.error(f"must be within 0 and 65535, not {port}", "port_value")
    return EndpointHealthCheck(port, reader.ascii("hostname"), reader.value("disable_active_health_check"))


def _read(reader: Reader) -> HealthCheck:
    for name in ("timeout", "interval", "unhealthy_threshold", "healthy_threshold"):
        if not reader.has(name):
            reader.error("is required", name)
    interval = reader.seconds("interval", 1.0, positive=True)
    unhealthy = _optional(reader, "unhealthy_interval")
    edge = _optional(reader, "unhealthy_edge_interval")
    tls = reader.child("tls_options")
    percent = reader.value("interval_jitter_percent")
    if percent > 100:
        # Envoy takes more; three times the interval is what nobody means.
        reader.error(f"must be within 0 and 100, not {percent}", "interval_jitter_percent")
    return HealthCheck(
        check=_check(reader),
        timeout=reader.seconds("timeout", 1.0, positive=True),
        interval=interval,
        unhealthy_threshold=reader.integer("unhealthy_threshold", 1, 0, _UINT32),
        healthy_threshold=reader.integer("healthy_threshold", 1, 0, _UINT32),
        initial_jitter=reader.seconds("initial_jitter", 0.0),
        interval_jitter=reader.seconds("interval_jitter", 0.0),
        interval_jitter_percent=percent,
        unhealthy_interval=unhealthy,
        unhealthy_edge_interval=edge if edge is not None else unhealthy,
        healthy_edge_interval=_optional(reader, "healthy_edge_interval"),
        no_traffic_interval=reader.seconds("no_traffic_interval", 60.0, positive=True),
        no_traffic_healthy_interval=_optional(reader, "no_traffic_healthy_interval"),
        reuse_connection=reader.wrapped("reuse_connection", True),
        alt_port=reader.integer("alt_port", 0, 0, 65535),
        alpn_protocols=_alpn(tls) if tls is not None else (),
    )


def _optional(reader: Reader, name: str) -> float | None:
    return reader.seconds(name, 1.0, positive=True) if reader.has(name) else None


def _alpn(reader: Reader) -> tuple[str, ...]:
    names = tuple(reader.value("alpn_protocols"))
    for index, name in enumerate(names):
        if not 1 <= len(name.encode()) <= 255:  # RFC 7301 §3.1
            reader.error("must have 1 to 255 octets", f"alpn_protocols[{index}]")
    return names


def _check(reader: Reader) -> HttpCheck | TcpCheck | GrpcCheck:
    kind = reader.one_of("health_checker", "http_health_check", "tcp_health_check", "grpc_health_check")
    inner = reader.child(kind) if kind is not None else None
    if inner is None:
        return TcpCheck()
    if kind == "http_health_check":
        return _http(inner)
    if kind == "tcp_health_check":
        return TcpCheck(
            b"".join(_payload(item) for item in [inner.child("send")] if item is not None),
            tuple(_payload(item) for item in inner.children("receive")),
        )
    return GrpcCheck(
        inner.text("service_name"), inner.ascii("authority"), read_plain_headers(inner, "initial_metadata")
    )


def _http(reader: Reader) -> HttpCheck:
    path = reader.ascii("path")
    if not path:
        reader.error("is required", "path")
    elif not path.startswith("/") or " " in path:
        reader.error("must begin with a slash and hold no space", "path")
    expected = _statuses(reader, "expected_statuses") or ((200, 201),)
    retriable = _statuses(reader, "retriable_statuses")
    host = reader.ascii("host")
    if " " in host:
        reader.error("must hold no space", "host")
    return HttpCheck(
        path=path,
        host=host,
        method=reader.enum("method", _METHODS),
        expected_statuses=expected,
        retriable_statuses=retriable,
        headers=read_plain_headers(reader, "request_headers_to_add"),
        http2=reader.enum("codec_client_type", {"HTTP1": False, "HTTP2": True}),
    )


def _statuses(reader: Reader, name: str) -> tuple[tuple[int, int], ...]:
    """Envoy: each range within 100 and 600, its end not included."""
    ranges = []
    for item in reader.children(name):
        start, end = item.value("start"), item.value("end")
        if not 100 <= start < end <= 600:
            item.error(
                f"must be a range from 100 to 599, and its end one more than its last status, not {start} to {end}"
            )
        ranges.append((start, end))
    return tuple(ranges)


def _payload(reader: Reader) -> bytes:
    kind = reader.one_of("payload", "text", "binary")
    if kind is None:
        return b""
    if kind == "binary":
        data: bytes = reader.value("binary")
    else:
        text = reader.value("text")
        try:
            data = bytes.fromhex(text)
        except ValueError:
            reader.context.error(join(reader.path, "text"), "must be hexadecimal digits, two for each octet")
            return b""
    if not data:
        reader.error("must not be empty", kind)
    return data
