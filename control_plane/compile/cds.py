"""Clusters: one for each service and each of its versions, and the sidecar's own app."""

from __future__ import annotations

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from control_plane.compile import http2, tls
from control_plane.mesh import Protocol, Service

INBOUND = "inbound"
CONNECT_TIMEOUT = 1  # seconds
MAX_RETRIES = 100
"""Requests of one sidecar to one cluster that may be in a retry at once. Envoy's default of 3 is used up at once
when an instance dies under load, and what is retried by default never reached an app."""


def cluster_name(service: str, version: str | None = None) -> str:
    """ "cart", or "cart|v1". Service names have no '|'."""
    return service if version is None else f"{service}|{version}"


_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ALPN: dict[Protocol, tuple[str, ...]] = {"http": (tls.HTTP_11,), "http2": (tls.H2,), "grpc": (tls.H2,), "tcp": ()}


def mesh_cluster(name: str, service: Service, trust_domain: str) -> Cluster:
    """The sidecars of `service`, or of one of its versions, as `name` says: endpoints by EDS, mutual TLS."""
    cluster = Cluster(
        name=name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=tls.ads()),
        connect_timeout=Duration(seconds=CONNECT_TIMEOUT),
        transport_socket=tls.upstream(trust_domain, service.name, _ALPN[service.protocol]),
        circuit_breakers=CircuitBreakers(
            thresholds=[CircuitBreakers.Thresholds(max_retries=UInt32Value(value=MAX_RETRIES))]
        ),
    )
    _speak(cluster, service.protocol, http2.between_sidecars())
    return cluster


def inbound(app_port: int, protocol: Protocol) -> Cluster:
    """The app beside the sidecar, which speaks `protocol`."""
    address = Address(socket_address=SocketAddress(address="127.0.0.1", port_value=app_port))
    app = LbEndpoint(endpoint=Endpoint(address=address))
    cluster = Cluster(
        name=INBOUND,
        type=Cluster.STATIC,
        connect_timeout=Duration(seconds=CONNECT_TIMEOUT),
        load_assignment=ClusterLoadAssignment(
            cluster_name=INBOUND, endpoints=[LocalityLbEndpoints(lb_endpoints=[app])]
        ),
    )
    _speak(cluster, protocol, http2.beside_an_app())
    return cluster


def _speak(cluster: Cluster, protocol: Protocol, options: Http2ProtocolOptions) -> None:
    """HTTP/2 for what speaks it; HTTP/1.1, which is Envoy's default, for all else."""
    if protocol in ("http2", "grpc"):
        explicit = HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=options)
        any_options = cluster.typed_extension_protocol_options[_HTTP_OPTIONS]
        any_options.Pack(HttpProtocolOptions(explicit_http_config=explicit), deterministic=True)
