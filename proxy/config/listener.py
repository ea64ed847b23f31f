"""Listeners and what stands behind them (envoy.config.listener.v3, HttpConnectionManager)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.config.http2 import HTTP2_DEFAULTS, Http2Options
from proxy.config.model import Address, DownstreamTls
from proxy.config.route import RouteConfiguration, WeightedCluster

Codec = Literal["AUTO", "HTTP1", "HTTP2"]
ClientCertDetails = Literal["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"]
EscapedSlashesAction = Literal["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]
UnderscoresAction = Literal["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]
ServerHeader = Literal["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"]


@dataclass(frozen=True, slots=True)
class AccessLog:
    """envoy.extensions.access_loggers.file.v3.FileAccessLog (stdout and stderr loggers are the paths
    /dev/stdout and /dev/stderr). Exactly one of `json_format` and `text_format` is not None; values are Envoy
    command-operator strings such as "%REQ(:METHOD)%"."""

    path: str
    json_format: tuple[tuple[str, str], ...] | None = None
    text_format: str | None = None


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One entry of http_filters before the router. `config` is the filter's own frozen dataclass, decoded from
    its typed_config; `type_url` selects its implementation in proxy.filters.FILTERS."""

    name: str
    type_url: str
    config: object = None


@dataclass(frozen=True, slots=True)
class HttpConnectionManager:
    """envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.

    Exactly one of `route_config` (inline) and `rds` (name of a RouteConfiguration of the snapshot) is set.
    Zero disables a timeout.
    """

    # Envoy demands it and names its statistics by it; ours carry the listener's name.
    stat_prefix: str
    route_config: RouteConfiguration | None = None
    rds: str | None = None
    http_filters: tuple[HttpFilter, ...] = ()
    access_logs: tuple[AccessLog, ...] = ()
    # Presence of the `tracing` message: continue or start a W3C trace, instead of passing traceparent unread.
    tracing: bool = False
    generate_request_id: bool = True
    preserve_external_request_id: bool = False
    always_set_request_id_in_response: bool = False
    use_remote_address: bool = False
    xff_num_trusted_hops: int = 0
    skip_xff_append: bool = False
    via: str = ""
    # upgrade_configs: the protocols (lower case; "connect" for CONNECT) that are passed on where a route says nothing.
    upgrades: frozenset[str] = frozenset()
    server_name: str = "pillion"
    server_header_transformation: ServerHeader = "OVERWRITE"
    forward_client_cert_details: ClientCertDetails = "SANITIZE"
    # Which parts set_current_client_cert_details asks for, besides By and Hash: "subject", "uri", "cert", "dns".
    set_current_client_cert_details: tuple[str, ...] = ()
    idle_timeout: float = 3600.0
    stream_idle_timeout: float = 300.0
    # Envoy's is 0: there only stream_idle_timeout bounds a head that comes slowly.
    request_headers_timeout: float = 60.0
    request_timeout: float = 0.0
    max_stream_duration: float = 0.0
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0
    drain_timeout: float = 5.0
    delayed_close_timeout: float = 1.0
    max_request_headers_bytes: int = 60 * 1024
    max_headers_count: int = 100
    headers_with_underscores_action: UnderscoresAction = "ALLOW"
    normalize_path: bool = False
    merge_slashes: bool = False
    path_with_escaped_slashes_action: EscapedSlashesAction = "KEEP_UNCHANGED"
    strip_matching_host_port: bool = False
    strip_any_host_port: bool = False
    # http_protocol_options
    allow_absolute_url: bool = True
    accept_http_10: bool = False
    default_host_for_http_10: str = ""
    # AUTO: by ALPN under TLS, else by the connection's first bytes.
    codec: Codec = "AUTO"
    http2: Http2Options = HTTP2_DEFAULTS


@dataclass(frozen=True, slots=True)
class TcpProxy:
    """envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy: bytes both ways, whatever they mean.

    A single `cluster` is one entry of weight 1. Zero disables a timeout.
    """

    # Envoy demands it and names its statistics by it; ours carry the listener's name.
    stat_prefix: str
    clusters: tuple[WeightedCluster, ...]
    access_logs: tuple[AccessLog, ...] = ()
    idle_timeout: float = 3600.0
    max_connect_attempts: int = 1
    max_downstream_connection_duration: float = 0.0


@dataclass(frozen=True, slots=True)
class FilterChain:
    """envoy.config.listener.v3.FilterChain with one terminal network filter: exactly one of `http` and `tcp` is set."""

    http: HttpConnectionManager | None = None
    tls: DownstreamTls | None = None
    transport_socket_connect_timeout: float = 15.0
    tcp: TcpProxy | None = None

    @property
    def access_logs(self) -> tuple[AccessLog, ...]:
        """Those of the filter, whichever it is."""
        terminal = self.http or self.tcp
        return terminal.access_logs if terminal is not None else ()


@dataclass(frozen=True, slots=True)
class Listener:
    """envoy.config.listener.v3.Listener. The agent binds `address`; a worker only ever sees the open socket."""

    name: str
    address: Address
    filter_chain: FilterChain
    traffic_direction: Literal["UNSPECIFIED", "INBOUND", "OUTBOUND"] = "UNSPECIFIED"
