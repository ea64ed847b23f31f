"""Load assignments: who serves a service, or one version of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import Metadata
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value

from control_plane.leases import Instance
from control_plane.mesh import Version

METADATA = "pillion"


def is_of_version(instance: Instance, version: Version) -> bool:
    """An instance is of a version when it carries all of the version's labels."""
    return all(instance.labels.get(key) == value for key, value in version.labels.items())


def load_assignment(name: str, instances: Sequence[Instance], versions: Mapping[str, Version]) -> ClusterLoadAssignment:
    """All of `instances`, in their order."""
    endpoints = [_endpoint(it, versions) for it in instances]
    # No locality at all rather than an empty one: the same to Envoy, and shorter.
    localities = [LocalityLbEndpoints(lb_endpoints=endpoints)] if endpoints else []
    return ClusterLoadAssignment(cluster_name=name, endpoints=localities)


def _endpoint(instance: Instance, versions: Mapping[str, Version]) -> LbEndpoint:
    labels = dict(instance.labels)
    labels["instance"] = instance.id
    for name, version in versions.items():
        if is_of_version(instance, version):
            labels["version"] = name
            break
    fields = Struct()
    fields.update(labels)
    address = Address(socket_address=SocketAddress(address=instance.host, port_value=instance.port))
    return LbEndpoint(
        endpoint=Endpoint(address=address),
        load_balancing_weight=UInt32Value(value=instance.weight),
        metadata=Metadata(filter_metadata={METADATA: fields}),
    )
