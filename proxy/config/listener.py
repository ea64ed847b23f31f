"""Listeners and what stands behind them (envoy.config.listener.v3, HttpConnectionManager)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.config.model import Address, DownstreamTls
from proxy.config.route import RouteConfiguration

ClientCertDetails = Literal["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"]


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
    use_remote_address: bool = False
    server_name: str = "pillion"
    forward_client_cert_details: ClientCertDetails = "SANITIZE"
    # Which parts set_current_client_cert_details asks for, besides By and Hash: "subject", "uri", "cert", "dns".
    set_current_client_cert_details: tuple[str, ...] = ()
    idle_timeout: float = 3600.0
    stream_idle_timeout: float = 300.0
    request_headers_timeout: float = 0.0
    drain_timeout: float = 5.0
    max_request_headers_bytes: int = 60 * 1024
    max_headers_count: int = 100


@dataclass(frozen=True, slots=True)
class FilterChain:
    """envoy.config.listener.v3.FilterChain with one terminal network filter."""

    http: HttpConnectionManager
    tls: DownstreamTls | None = None
    transport_socket_connect_timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class Listener:
    """envoy.config.listener.v3.Listener. The agent binds `address`; a worker only ever sees the open socket."""

    name: str
    address: Address
    filter_chain: FilterChain
    traffic_direction: Literal["UNSPECIFIED", "INBOUND", "OUTBOUND"] = "UNSPECIFIED"
