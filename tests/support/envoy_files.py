"""What is compiled, for a proxy without Pillion's agent: certificates in files instead of by SDS, and, if need be, all of
it in one bootstrap file.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext, UpstreamTlsContext
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Snapshot

Files = tuple[Path, Path, Path]
"""(chain, key, roots)"""


def files_for_sds(config: Any, context: Message, files: Files) -> None:
    """Have a packed TLS context use (chain, key, roots) where it names the secrets of the mesh."""
    certificate, key, roots = files
    config.Unpack(context)
    common = context.common_tls_context
    (secret,) = common.tls_certificate_sds_secret_configs
    assert secret.name == "default"
    del common.tls_certificate_sds_secret_configs[:]
    common.tls_certificates.add(certificate_chain={"filename": str(certificate)}, private_key={"filename": str(key)})
    combined = common.combined_validation_context
    assert combined.validation_context_sds_secret_config.name == "ROOTCA"
    validation = combined.default_validation_context
    validation.trusted_ca.filename = str(roots)
    common.validation_context.CopyFrom(validation)
    config.Pack(context)


def write_certificates(directory: Path) -> Files:
    """A self-signed (chain, key, roots) in `directory`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private, chain


def static_bootstrap(snapshot: Snapshot, files: Files) -> Bootstrap:
    """Every resource in one file: RDS and EDS inlined, SDS names replaced by PEM files."""
    bootstrap = Bootstrap()
    bootstrap.node.id, bootstrap.node.cluster = "storefront~1", "storefront"
    routes = {name: unpack(snapshot, ROUTE, name, RouteConfiguration()) for name in snapshot.tables[ROUTE].by_name}
    for name in snapshot.tables[LISTENER].by_name:
        listener = unpack(snapshot, LISTENER, name, Listener())
        chain = listener.filter_chains[0]
        manager = HttpConnectionManager()
        if chain.filters[0].typed_config.Unpack(manager) and manager.HasField("rds"):
            manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
            chain.filters[0].typed_config.Pack(manager)
        if chain.HasField("transport_socket"):
            files_for_sds(chain.transport_socket.typed_config, DownstreamTlsContext(), files)
        bootstrap.static_resources.listeners.append(listener)
    for name in snapshot.tables[CLUSTER].by_name:
        cluster = unpack(snapshot, CLUSTER, name, Cluster())
        if cluster.type == Cluster.EDS:
            cluster.type = Cluster.STATIC
            cluster.ClearField("eds_cluster_config")
            cluster.load_assignment.CopyFrom(unpack(snapshot, ENDPOINT, name, ClusterLoadAssignment()))
        if cluster.HasField("transport_socket"):
            files_for_sds(cluster.transport_socket.typed_config, UpstreamTlsContext(), files)
        bootstrap.static_resources.clusters.append(cluster)
    return bootstrap


def unpack(snapshot: Snapshot, type_url: str, name: str, message: Message) -> Message:
    """One resource, into an empty `message` of its type."""
    packed = Any.FromString(snapshot.tables[type_url].by_name[name].body)
    assert packed.type_url == type_url
    assert packed.Unpack(message)
    return message
