"""Clusters: one for each service and each of its versions, and the sidecar's own app."""

from __future__ import annotations

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from control_plane.compile import tls

INBOUND = "inbound"
CONNECT_TIMEOUT = 1  # seconds
MAX_RETRIES = 100
"""Requests of one sidecar to one cluster that may be in a retry at once. Envoy's default of 3 is used up at once
when an instance dies under load, and what is retried by default never reached an app."""


def cluster_name(service: str, version: str | None = None) -> str:
    """ "cart", or "cart|v1". Service names have no '|'."""
    return service if version is None else f"{service}|{version}"


def mesh_cluster(name: str, service: str, trust_domain: str) -> Cluster:
    """The sidecars of `service`, or of one of its versions, as `name` says: endpoints by EDS, mutual TLS."""
    return Cluster(
        name=name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=tls.ads()),
        connect_timeout=Duration(seconds=CONNECT_TIMEOUT),
        transport_socket=tls.upstream(trust_domain, service),
        circuit_breakers=CircuitBreakers(
            thresholds=[CircuitBreakers.Thresholds(max_retries=UInt32Value(value=MAX_RETRIES))]
        ),
    )


def inbound(app_port: int) -> Cluster:
    """The app beside the sidecar."""
    address = Address(socket_address=SocketAddress(address="127.0.0.1", port_value=app_port))
    app = LbEndpoint(endpoint=Endpoint(address=address))
    return Cluster(
        name=INBOUND,
        type=Cluster.STATIC,
        connect_timeout=Duration(seconds=CONNECT_TIMEOUT),
        load_assignment=ClusterLoadAssignment(
            cluster_name=INBOUND, endpoints=[LocalityLbEndpoints(lb_endpoints=[app])]
        ),
    )
