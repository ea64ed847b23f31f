"""Load assignments (envoy.config.endpoint.v3)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from proxy.agent.decode import types
from proxy.agent.decode.matchers import decode_address, decode_labels, is_ip
from proxy.agent.decode.reader import Reader, decode
from proxy.config.cluster import Endpoint, LoadAssignment
from proxy.config.model import Address

# envoy.config.core.v3.HealthStatus: UNKNOWN (0) and HEALTHY (1) take requests. DEGRADED takes them in Envoy
# only when too few others are left, which Pillion does not have; so it takes none.
_HEALTHY = (0, 1)
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
    return LoadAssignment(name, read_endpoints(reader, ip=True))


def read_endpoints(reader: Reader, *, ip: bool) -> tuple[Endpoint, ...]:
    """The endpoints of every locality. Without `ip` the hosts may be names (STRICT_DNS)."""
    reader.opaque("cluster_name")
    exact = _knows_every_field(reader.message)
    endpoints: dict[Address, Endpoint] = {}
    for locality in reader.children("endpoints"):
        # Both matter to Envoy only with locality-weighted or zone-aware balancing, which is off unless a
        # cluster asks for it (and is then refused there). gRPC clients need them set.
        locality.opaque("locality")
        locality.opaque("load_balancing_weight")
        locality.opaque("metadata")
        locality.opaque("lb_endpoints")
        for i, entry in enumerate(locality.message.lb_endpoints):
            plain = _plain_endpoint(entry) if exact and ip else None
            if plain is None:
                path = f"{locality.path}.lb_endpoints[{i}]"
                one = Reader(entry, path, reader.context)
                plain = _endpoint(one, ip)
                one.done()
            # Envoy: of two endpoints with one address the first counts (an instance that came back in the
            # lifetime of its former lease is listed twice, and must not cost the others their update).
            endpoints.setdefault(plain.address, plain)
    return tuple(endpoints.values())


def _knows_every_field(message: Message) -> bool:
    """Whether no message in this one, at any depth, carries fields that this version does not know."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy.ByteSize() == message.ByteSize()


def _plain_endpoint(entry: Any) -> Endpoint | None:
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
    return Endpoint(Address(host, port), weight, fields.get("health_status", 0) in _HEALTHY, labels)


def _endpoint(reader: Reader, ip: bool) -> Endpoint:
    weight = reader.integer("load_balancing_weight", 1, 1, _MAX_WEIGHT)
    healthy = reader.value("health_status") in _HEALTHY
    labels = decode_labels(reader)
    inner = reader.child("endpoint")
    if inner is None:
        reader.error("is required", "endpoint")
        return Endpoint(Address("0.0.0.0", 0))
    address = decode_address(inner.child("address"), inner, ip=ip)
    hostname = inner.ascii("hostname")
    if not hostname and not is_ip(address.host):
        hostname = address.host  # STRICT_DNS: the name that is resolved
    return Endpoint(address, weight, healthy, labels, hostname)
