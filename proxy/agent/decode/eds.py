"""Load assignments (envoy.config.endpoint.v3)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from proxy.agent.decode import types
from proxy.agent.decode.health_check import read_endpoint_health_check
from proxy.agent.decode.lb_metadata import lb_metadata, read_lb_metadata
from proxy.agent.decode.matchers import decode_address, decode_labels, is_ip
from proxy.agent.decode.reader import Reader, decode
from proxy.config.balance import Locality
from proxy.config.cluster import Endpoint, LoadAssignment
from proxy.config.model import Address

# envoy.config.core.v3.HealthStatus: UNKNOWN (0) and HEALTHY (1) take requests, DEGRADED when too few others are left.
_HEALTHY = (0, 1)
_DEGRADED = 5
_LOWEST_PRIORITY = 128  # the proto's own validation rule
_MAX_WEIGHT = 2**32 - 1
# The only fields of each message that the quick path of _plain_endpoint knows.
_PLAIN_LB = frozenset({"endpoint", "health_status", "metadata", "load_balancing_weight"})


def decode_load_assignment(message: Message, unsupported: list[str] | None = None) -> LoadAssignment:
    """A ClusterLoadAssignment, or the Any that holds it. Errors: DecodeError.

    `unsupported`: a list collects what is not supported as warnings; None makes each an error.
    """
    return decode(message, types.LOAD_ASSIGNMENT, "load assignment", "cluster_name", _read_resource, unsupported)


def _read_resource(reader: Reader) -> LoadAssignment:
    name = reader.required("cluster_name")
    return LoadAssignment(name, read_endpoints(reader, ip=True), read_overprovisioning(reader))


def read_overprovisioning(reader: Reader) -> int:
    """ClusterLoadAssignment.Policy: by how much of what it needs a priority has more, in percent."""
    policy = reader.child("policy")
    return policy.integer("overprovisioning_factor", 140, 1, _MAX_WEIGHT) if policy is not None else 140


def read_endpoints(reader: Reader, *, ip: bool) -> tuple[Endpoint, ...]:
    """The endpoints of every locality. Without `ip` the hosts may be names (STRICT_DNS)."""
    reader.opaque("cluster_name")
    exact = _knows_every_field(reader.message)
    endpoints: dict[Address, Endpoint] = {}
    for locality in reader.children("endpoints"):
        where = _locality(locality)
        locality.opaque("metadata")
        locality.opaque("lb_endpoints")
        for i, entry in enumerate(locality.message.lb_endpoints):
            plain = _plain_endpoint(entry, where) if exact and ip else None
            if plain is None:
                path = f"{locality.path}.lb_endpoints[{i}]"
                one = Reader(entry, path, reader.context)
                plain = _endpoint(one, ip, where)
                one.done()
            # Envoy: of two endpoints with one address the first counts (an instance that came back in the
            # lifetime of its former lease is listed twice, and must not cost the others their update).
            endpoints.setdefault(plain.address, plain)
    return tuple(endpoints.values())


def _locality(reader: Reader) -> Locality:
    priority: int = reader.value("priority")
    if priority > _LOWEST_PRIORITY:
        reader.error(f"must be within 0 and {_LOWEST_PRIORITY}, not {priority}", "priority")
    weight = reader.integer("load_balancing_weight", 1, 1, _MAX_WEIGHT) if reader.has("load_balancing_weight") else 0
    inner = reader.child("locality")
    if inner is None:
        return Locality(priority, weight)
    return Locality(priority, weight, inner.text("region"), inner.text("zone"), inner.text("sub_zone"))


def _knows_every_field(message: Message) -> bool:
    """Whether no message in this one, at any depth, carries fields that this version does not know."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy.ByteSize() == message.ByteSize()


def _plain_endpoint(entry: Any, locality: Locality) -> Endpoint | None:
    """The quick path, for 5,000 endpoints: takes an ordinary one; None for what the Reader must look at."""
    fields = {field.name: value for field, value in entry.ListFields()}
    if not fields.keys() <= _PLAIN_LB or "endpoint" not in fields:
        return None
    labels: tuple[tuple[str, str], ...] = ()
    if "metadata" in fields and "pillion" in fields["metadata"].filter_metadata:
        ours = fields["metadata"].filter_metadata["pillion"].fields
        if any(item.WhichOneof("kind") != "string_value" for item in ours.values()):
            return None
        labels = tuple(sorted((key, item.string_value) for key, item in ours.items()))
    inner = fields["endpoint"].ListFields()
    if len(inner) != 1 or inner[0][0].name != "address":
        return None
    outer = inner[0][1].ListFields()
    if len(outer) != 1 or outer[0][0].name != "socket_address":
        return None
    socket_address = {field.name: value for field, value in outer[0][1].ListFields()}
    if socket_address.keys() != {"address", "port_value"}:
        return None
    host, port = socket_address["address"], socket_address["port_value"]
    weight = fields["load_balancing_weight"].value if "load_balancing_weight" in fields else 1
    if not is_ip(host) or port > 65535 or weight == 0:
        return None
    health = fields.get("health_status", 0)
    lb = lb_metadata(fields["metadata"]) if "metadata" in fields else ()
    degraded = health == _DEGRADED
    return Endpoint(Address(host, port), weight, health in _HEALTHY, labels, "", degraded, locality, metadata=lb)


def _endpoint(reader: Reader, ip: bool, locality: Locality) -> Endpoint:
    weight = reader.integer("load_balancing_weight", 1, 1, _MAX_WEIGHT)
    health: int = reader.value("health_status")
    labels = decode_labels(reader)
    inner = reader.child("endpoint")
    if inner is None:
        reader.error("is required", "endpoint")
        return Endpoint(Address("0.0.0.0", 0))
    address = decode_address(inner.child("address"), inner, ip=ip)
    hostname = inner.ascii("hostname")
    if not hostname and not is_ip(address.host):
        hostname = address.host  # STRICT_DNS: the name that is resolved
    check = read_endpoint_health_check(inner)
    degraded, lb = health == _DEGRADED, read_lb_metadata(reader, "metadata")
    return Endpoint(address, weight, health in _HEALTHY, labels, hostname, degraded, locality, check, lb)
