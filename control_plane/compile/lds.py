"""The two listeners of a sidecar: "outbound" for its app's calls, "inbound" for the mesh's."""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import TrafficDirection
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
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from control_plane.compile import tls
from control_plane.compile.cds import INBOUND
from control_plane.compile.client import Client
from control_plane.compile.rds import OUTBOUND

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


def outbound(client: Client) -> Listener:
    """127.0.0.1 only, plain text: the app is on this machine."""
    manager = _manager(OUTBOUND)
    manager.rds.CopyFrom(Rds(route_config_name=OUTBOUND, config_source=tls.ads()))
    return _listener(OUTBOUND, "127.0.0.1", client.outbound_port, manager, TrafficDirection.OUTBOUND)


def inbound(client: Client, trust_domain: str) -> Listener:
    """All addresses, mutual TLS only; everything goes to the app."""
    manager = _manager(INBOUND)
    # The caller's sidecar holds the deadline; a second one here would cut what its route allows.
    action = RouteAction(cluster=INBOUND, timeout=Duration())
    everything = Route(name=INBOUND, match=RouteMatch(prefix="/"), route=action)
    manager.route_config.CopyFrom(
        RouteConfiguration(name=INBOUND, virtual_hosts=[VirtualHost(name=INBOUND, domains=["*"], routes=[everything])])
    )
    manager.forward_client_cert_details = HttpConnectionManager.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    manager.set_current_client_cert_details.subject.value = True
    listener = _listener(INBOUND, "0.0.0.0", client.inbound_port, manager, TrafficDirection.INBOUND)
    listener.filter_chains[0].transport_socket.CopyFrom(tls.downstream(trust_domain))
    return listener


def _manager(direction: str) -> HttpConnectionManager:
    router = HttpFilter(name="envoy.filters.http.router")
    router.typed_config.Pack(Router())
    fields = Struct()
    fields.update({"direction": direction, **ACCESS_LOG_FIELDS})
    log = AccessLog(name="envoy.access_loggers.file")
    log.typed_config.Pack(
        FileAccessLog(path="/dev/stdout", log_format=SubstitutionFormatString(json_format=fields)),
        deterministic=True,
    )
    # Present, with no provider: continue or start a W3C trace.
    tracing = HttpConnectionManager.Tracing()
    return HttpConnectionManager(stat_prefix=direction, http_filters=[router], access_log=[log], tracing=tracing)


def _listener(
    name: str, host: str, port: int, manager: HttpConnectionManager, direction: TrafficDirection.ValueType
) -> Listener:
    network_filter = Filter(name="envoy.filters.network.http_connection_manager")
    network_filter.typed_config.Pack(manager, deterministic=True)
    return Listener(
        name=name,
        address=Address(socket_address=SocketAddress(address=host, port_value=port)),
        filter_chains=[FilterChain(filters=[network_filter])],
        traffic_direction=direction,
    )
