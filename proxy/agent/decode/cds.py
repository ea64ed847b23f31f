"""Clusters (envoy.config.cluster.v3)."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypedDict

from google.protobuf.message import Message

from proxy.agent.decode import types
from proxy.agent.decode.balance import read_balancing
from proxy.agent.decode.eds import read_endpoints, read_overprovisioning
from proxy.agent.decode.health_check import read_health_checks
from proxy.agent.decode.http2 import UpstreamProtocol, read_http2_options, read_upstream_protocol
from proxy.agent.decode.matchers import decode_ads
from proxy.agent.decode.outlier import read_outlier_detection
from proxy.agent.decode.reader import Reader, decode, join
from proxy.agent.decode.tls import check_upstream_alpn, decode_upstream_tls
from proxy.config.cluster import CircuitBreakers, Cluster, Endpoint, LoadAssignment
from proxy.config.health_check import GrpcCheck
from proxy.config.http2 import Http2Options

_DISCOVERY: dict[str, Literal["STATIC", "STRICT_DNS", "EDS"]] = {
    "STATIC": "STATIC",
    "STRICT_DNS": "STRICT_DNS",
    "EDS": "EDS",
}
_OPTIONS_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UINT32 = 2**32 - 1


class DecodedCluster(NamedTuple):
    """A cluster and what its message said about endpoints.

    `assignment` is set for STATIC. `dns` is set for STRICT_DNS: endpoints whose address still holds a host
    name, each to be replaced by one endpoint an answer (same port, weight, labels).
    """

    cluster: Cluster
    assignment: LoadAssignment | None
    dns: tuple[Endpoint, ...]


def decode_cluster(message: Message, unsupported: list[str] | None = None) -> DecodedCluster:
    """A Cluster, or the Any that holds it. Errors: DecodeError.

    `unsupported`: a list collects what is not supported as warnings; None makes each an error.
    """
    return decode(message, types.CLUSTER, "cluster", "name", read_cluster, unsupported)


def read_cluster(reader: Reader) -> DecodedCluster:
    """The same, for a Cluster inside of a bootstrap."""
    name = reader.required("name")
    reader.opaque("metadata")
    discovery = _discovery(reader)
    resource, endpoints, factor = _endpoints(reader, name, discovery)
    breakers = reader.child("circuit_breakers")
    outlier = reader.child("outlier_detection")
    policy, balancing = read_balancing(reader, names=discovery == "STRICT_DNS")
    check = read_health_checks(reader)
    limits = _protocol_options(reader)
    if check is not None and isinstance(check.check, GrpcCheck) and limits.get("protocol", "HTTP1") == "HTTP1":
        reader.error("grpc_health_check is only for a cluster of HTTP/2 (explicit_http_config)", "health_checks[0]")
    tls = decode_upstream_tls(reader)
    if tls is not None and limits.get("protocol") == "HTTP2":
        check_upstream_alpn(reader, tls.alpn_protocols)
    cluster = Cluster(
        name=name,
        discovery=discovery,
        load_assignment=resource,
        connect_timeout=reader.seconds("connect_timeout", 5.0, positive=True),
        lb_policy=policy,
        load_balancing=balancing,
        tls=tls,
        circuit_breakers=_circuit_breakers(breakers) if breakers else CircuitBreakers(),
        outlier_detection=read_outlier_detection(outlier) if outlier else None,
        health_check=check,
        ignore_health_on_host_removal=reader.value("ignore_health_on_host_removal"),
        **limits,
    )
    if discovery == "STATIC":
        return DecodedCluster(cluster, LoadAssignment(resource, endpoints, factor), ())
    return DecodedCluster(cluster, None, endpoints)


def _discovery(reader: Reader) -> Literal["STATIC", "STRICT_DNS", "EDS"]:
    if reader.which("cluster_discovery_type") == "cluster_type":
        reader.one_of("cluster_discovery_type", "type")
        return "STATIC"
    return reader.enum("type", _DISCOVERY)


def _endpoints(reader: Reader, name: str, discovery: str) -> tuple[str, tuple[Endpoint, ...], int]:
    """The load assignment's name in the snapshot, the endpoints that the message itself holds, and their
    overprovisioning factor."""
    if discovery == "EDS":
        eds = reader.child("eds_cluster_config")
        if eds is None:
            reader.error("is required for type EDS", "eds_cluster_config")
            return name, (), 140
        decode_ads(eds.child("eds_config"), eds, "eds_config", "an EDS cluster")
        return eds.value("service_name") or name, (), 140
    inline = reader.child("load_assignment")
    if inline is None:
        reader.error(f"is required for type {discovery}", "load_assignment")
        return name, (), 140
    if not inline.value("cluster_name"):
        inline.error("is required", "cluster_name")
    endpoints = read_endpoints(inline, ip=discovery == "STATIC")
    if not inline.message.endpoints or not any(group.lb_endpoints for group in inline.message.endpoints):
        inline.error("has no endpoint: every request to this cluster would fail", "endpoints")
    factor = read_overprovisioning(inline)
    if discovery != "STATIC" and factor != 140:
        inline.unsupported("is supported for STATIC and EDS only", "policy.overprovisioning_factor")
    return name, endpoints, factor


def _circuit_breakers(reader: Reader) -> CircuitBreakers:
    found = CircuitBreakers()
    thresholds = reader.children("thresholds")
    if len(thresholds) > 1:
        reader.error("has more than one entry for priority DEFAULT", "thresholds")
    for entry in thresholds:
        entry.enum("priority", {"DEFAULT": None})
        found = CircuitBreakers(
            entry.integer("max_connections", 1024, 0, _UINT32),
            entry.integer("max_pending_requests", 1024, 0, _UINT32),
            entry.integer("max_requests", 1024, 0, _UINT32),
            entry.integer("max_retries", 3, 0, _UINT32),
        )
    return found


class _Limits(TypedDict, total=False):
    """Fields of Cluster."""

    idle_timeout: float
    max_requests_per_connection: int
    max_connection_duration: float
    max_headers_count: int
    max_response_headers_bytes: int
    protocol: UpstreamProtocol
    http2: Http2Options


def _protocol_options(reader: Reader) -> _Limits:
    """What typed_extension_protocol_options says, or the deprecated http2_protocol_options in its place."""
    limits: _Limits = {}
    deprecated = reader.child("http2_protocol_options")  # what Envoy, too, still takes
    if deprecated is not None:
        limits["protocol"], limits["http2"] = "HTTP2", read_http2_options(deprecated)
    entries = reader.value("typed_extension_protocol_options")
    for key in sorted(entries):
        path = join(reader.path, f'typed_extension_protocol_options["{key}"]')
        if key != _OPTIONS_KEY:
            reader.context.unsupported(path, "this field is not supported")
            continue
        if types.type_name(entries[key]) != types.HTTP_PROTOCOL_OPTIONS:
            reader.context.error(path, f"must be a {types.HTTP_PROTOCOL_OPTIONS}")
            continue
        found = reader.unpack(entries[key], path)
        if found is None:
            continue
        options = found[1]
        if deprecated is not None:
            deprecated.error(f"cannot be set together with {_OPTIONS_KEY}")
        common = options.child("common_http_protocol_options")
        if common is not None:
            limits["idle_timeout"] = common.seconds("idle_timeout", 3600.0)
            limits["max_requests_per_connection"] = common.integer("max_requests_per_connection", 0, 0, _UINT32)
            limits["max_connection_duration"] = common.seconds("max_connection_duration", 0.0)
            limits["max_headers_count"] = common.integer("max_headers_count", 100, 1, _UINT32)
            limits["max_response_headers_bytes"] = common.integer("max_response_headers_kb", 60, 1, 8192) * 1024
        limits["protocol"], limits["http2"] = read_upstream_protocol(options)
    return limits
