"""The listeners of a sidecar: "outbound" for its app's calls by name, "inbound" for the mesh's, and one for each
service that has a local port."""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import TrafficDirection
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from control_plane import mesh
from control_plane.compile import http2, rds, tls
from control_plane.compile.cds import INBOUND
from control_plane.compile.client import Client
from control_plane.compile.rds import NUM_RETRIES, OUTBOUND

ACCESS_LOG_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "upstream_host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}

CONNECTION_LOG_FIELDS = {
    "time": "%START_TIME%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "upstream_host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


def by_port_name(service: str) -> str:
    """The name of a service's own listener. Service names have no '|'."""
    return f"{OUTBOUND}|{service}"


REQUEST_HEADERS_TIMEOUT = 10
"""Seconds for a request's head. Both ends are close: whoever needs longer is stuck, or wants to keep us busy."""


def outbound(client: Client) -> Listener:
    """127.0.0.1 only, plain text: the app is on this machine."""
    manager = _manager(OUTBOUND, http2.beside_an_app())
    manager.http_protocol_options.accept_http_10 = True  # old tools and health checks still speak it
    manager.rds.CopyFrom(Rds(route_config_name=OUTBOUND, config_source=tls.ads()))
    return _listener(OUTBOUND, "127.0.0.1", client.outbound_port, manager, TrafficDirection.OUTBOUND)


def by_port(service: mesh.Service) -> Listener:
    """A service on its local port, for clients that cannot say its name. 127.0.0.1 only, plain text, as outbound."""
    assert service.local_port is not None
    name = by_port_name(service.name)
    if service.protocol == "tcp":
        terminal: Message = _relay(OUTBOUND, rds.shares(service), NUM_RETRIES + 1)
    else:
        host = VirtualHost(name=service.name, domains=["*"], routes=rds.routes(service))
        manager = _manager(OUTBOUND, http2.beside_an_app())
        manager.route_config.CopyFrom(RouteConfiguration(name=name, virtual_hosts=[host]))
        terminal = manager
    return _listener(name, "127.0.0.1", service.local_port, terminal, TrafficDirection.OUTBOUND)


def inbound(client: Client, trust_domain: str, protocol: mesh.Protocol) -> Listener:
    """All addresses, mutual TLS only; everything goes to the app, over HTTP/1.1 or HTTP/2 as the caller likes."""
    terminal = _relay(INBOUND, {INBOUND: 1}, 1) if protocol == "tcp" else _inbound_manager(protocol)
    alpn = () if protocol == "tcp" else (tls.H2, tls.HTTP_11)
    listener = _listener(INBOUND, "0.0.0.0", client.inbound_port, terminal, TrafficDirection.INBOUND)
    listener.filter_chains[0].transport_socket.CopyFrom(tls.downstream(trust_domain, alpn))
    return listener


def _inbound_manager(protocol: mesh.Protocol) -> HttpConnectionManager:
    manager = _manager(INBOUND, http2.between_sidecars())
    # The caller's sidecar holds the deadline; a second one here would cut what its route allows.
    action = RouteAction(cluster=INBOUND, timeout=Duration())
    if protocol == "grpc":
        action.idle_timeout.CopyFrom(Duration())
    everything = Route(name=INBOUND, match=RouteMatch(prefix="/"), route=action)
    manager.route_config.CopyFrom(
        RouteConfiguration(name=INBOUND, virtual_hosts=[VirtualHost(name=INBOUND, domains=["*"], routes=[everything])])
    )
    manager.forward_client_cert_details = HttpConnectionManager.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    manager.set_current_client_cert_details.subject.value = True
    return manager


def _relay(direction: str, shares: Mapping[str, int], max_connect_attempts: int) -> TcpProxy:
    """Bytes to these clusters, by weight."""
    proxy = TcpProxy(
        stat_prefix=direction,
        max_connect_attempts=UInt32Value(value=max_connect_attempts),
        access_log=[_access_log(direction, CONNECTION_LOG_FIELDS)],
    )
    if len(shares) == 1:
        proxy.cluster = next(iter(shares))
    else:
        proxy.weighted_clusters.clusters.extend(
            TcpProxy.WeightedCluster.ClusterWeight(name=name, weight=weight) for name, weight in shares.items()
        )
    return proxy


def _access_log(direction: str, fields: Mapping[str, str]) -> AccessLog:
    form = Struct()
    form.update({"direction": direction, **fields})
    log = AccessLog(name="envoy.access_loggers.file")
    log.typed_config.Pack(
        FileAccessLog(path="/dev/stdout", log_format=SubstitutionFormatString(json_format=form)),
        deterministic=True,
    )
    return log


def _manager(direction: str, options: Http2ProtocolOptions) -> HttpConnectionManager:
    router = HttpFilter(name="envoy.filters.http.router")
    router.typed_config.Pack(Router())
    log = _access_log(direction, ACCESS_LOG_FIELDS)
    # Present, with no provider: continue or start a W3C trace.
    tracing = HttpConnectionManager.Tracing()
    return HttpConnectionManager(
        # HTTP/1.1 and HTTP/2 on one port: by ALPN, or by a connection's first bytes.
        codec_type=HttpConnectionManager.AUTO,
        http2_protocol_options=options,
        stat_prefix=direction,
        http_filters=[router],
        access_log=[log],
        tracing=tracing,
        request_headers_timeout=Duration(seconds=REQUEST_HEADERS_TIMEOUT),
        # Two spellings of one path must not take two routes, nor pass one policy.
        normalize_path=BoolValue(value=True),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
    )


def _listener(name: str, host: str, port: int, terminal: Message, direction: TrafficDirection.ValueType) -> Listener:
    kind = "tcp_proxy" if isinstance(terminal, TcpProxy) else "http_connection_manager"
    network_filter = Filter(name=f"envoy.filters.network.{kind}")
    network_filter.typed_config.Pack(terminal, deterministic=True)
    return Listener(
        name=name,
        address=Address(socket_address=SocketAddress(address=host, port_value=port)),
        filter_chains=[FilterChain(filters=[network_filter])],
        traffic_direction=direction,
    )
