"""Which types can be decoded, and the module that defines each; nothing else of envoy.* is ever imported."""

from __future__ import annotations

from importlib import import_module

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError as WireError
from google.protobuf.message import Message

PREFIX = "type.googleapis.com/"
UNKNOWN_TYPE = PREFIX + "google.protobuf.StringValue"
"""Stands in a parsed bootstrap for an Any of a type that is not known; its value is the type URL given."""

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION = "envoy.config.route.v3.RouteConfiguration"
CLUSTER = "envoy.config.cluster.v3.Cluster"
LOAD_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
HTTP_CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
CORS = "envoy.extensions.filters.http.cors.v3.Cors"
CORS_POLICY = "envoy.extensions.filters.http.cors.v3.CorsPolicy"
GRPC_WEB = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"
LOCAL_RATE_LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
RATE_LIMIT_EXPRESSION = "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"
FILE_ACCESS_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
STDOUT_ACCESS_LOG = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
STDERR_ACCESS_LOG = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog"
DOWNSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
UPSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_MODULES = {
    BOOTSTRAP: "envoy.config.bootstrap.v3.bootstrap_pb2",
    LISTENER: "envoy.config.listener.v3.listener_pb2",
    ROUTE_CONFIGURATION: "envoy.config.route.v3.route_pb2",
    CLUSTER: "envoy.config.cluster.v3.cluster_pb2",
    LOAD_ASSIGNMENT: "envoy.config.endpoint.v3.endpoint_pb2",
    HTTP_CONNECTION_MANAGER: (
        "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2"
    ),
    TCP_PROXY: "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2",
    ROUTER: "envoy.extensions.filters.http.router.v3.router_pb2",
    CORS: "envoy.extensions.filters.http.cors.v3.cors_pb2",
    CORS_POLICY: "envoy.extensions.filters.http.cors.v3.cors_pb2",
    GRPC_WEB: "envoy.extensions.filters.http.grpc_web.v3.grpc_web_pb2",
    LOCAL_RATE_LIMIT: "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2",
    RATE_LIMIT_EXPRESSION: "envoy.extensions.rate_limit_descriptors.expr.v3.expr_pb2",
    FAULT: "envoy.extensions.filters.http.fault.v3.fault_pb2",
    FILTER_CONFIG: "envoy.config.route.v3.route_components_pb2",
    FILE_ACCESS_LOG: "envoy.extensions.access_loggers.file.v3.file_pb2",
    STDOUT_ACCESS_LOG: "envoy.extensions.access_loggers.stream.v3.stream_pb2",
    STDERR_ACCESS_LOG: "envoy.extensions.access_loggers.stream.v3.stream_pb2",
    DOWNSTREAM_TLS: "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    UPSTREAM_TLS: "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    HTTP_PROTOCOL_OPTIONS: "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
}


def known(name: str) -> bool:
    """Whether the full message name is one that some decoder takes."""
    return name in _MODULES


def message_class(name: str) -> type[Message]:
    """The generated class of a known message name; imports its module."""
    found: type[Message] = getattr(import_module(_MODULES[name]), name.rpartition(".")[2])
    return found


def type_name(any_message: Any) -> str:
    """The full message name in an Any's type URL (what follows the last slash, as in protobuf)."""
    return any_message.type_url.rpartition("/")[2]


def unpack(any_message: Any) -> Message | None:
    """The message inside an Any of a known type; None when its bytes are not that message."""
    message = message_class(type_name(any_message))()
    try:
        message.ParseFromString(any_message.value)
    except WireError:
        return None
    return message
