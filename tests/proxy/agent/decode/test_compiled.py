"""What our own control plane compiles, the sidecar takes: both ends of the wire in one test."""

from google.protobuf.any_pb2 import Any

from control_plane import mesh
from control_plane.compile import Client, Compiler
from control_plane.leases import Instance
from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE
from proxy.agent.decode import (
    decode_cluster,
    decode_listener,
    decode_load_assignment,
    decode_route_configuration,
)
from proxy.config.model import Address

MESH = """
kind: Service
name: cart
versions: {v1: {labels: {version: v1}}, v2: {labels: {version: v2}}}
routes:
  - name: canary
    matches:
      - {path: {type: PathPrefix, value: /}, headers: [{name: x-beta, value: "1"}], method: GET}
      - {path: {type: RegularExpression, value: "/[a-z]+"}}
    backendRefs: [{name: cart, version: v1, weight: 95}, {name: cart, version: v2, weight: 5}]
    timeouts: {request: 2s}
---
kind: Service
name: payments
"""


def test_the_control_planes_resources_are_decoded() -> None:
    documents = mesh.parse([("mesh.yaml", MESH)])
    mesh.validate(documents)
    instances = [
        Instance("cart", "a", "10.0.0.1", 15006, {"version": "v1"}, 3),
        Instance("cart", "b", "fd00::1", 15006, {"version": "v2"}),
    ]
    compiler = Compiler("pillion.local")
    compiler.update({it.name: it for it in documents}, {it.key: it for it in instances})
    tables = compiler.snapshot(Client("cart", 8080, 15006, 15001)).tables

    def resources(type_url: str) -> dict[str, Any]:
        return {name: Any.FromString(found.body) for name, found in tables[type_url].by_name.items()}

    listeners = {name: decode_listener(it) for name, it in resources(LISTENER).items()}
    clusters = {name: decode_cluster(it) for name, it in resources(CLUSTER).items()}
    routes = {name: decode_route_configuration(it) for name, it in resources(ROUTE).items()}
    assignments = {name: decode_load_assignment(it) for name, it in resources(ENDPOINT).items()}

    assert {name: it.address.port for name, it in listeners.items()} == {"inbound": 15006, "outbound": 15001}
    assert listeners["outbound"].filter_chain.http.rds == "outbound"
    assert listeners["inbound"].filter_chain.tls is not None
    assert routes["outbound"].clusters() <= clusters.keys()
    assert clusters["inbound"].assignment is not None
    assert {it.cluster.load_assignment for it in clusters.values() if it.assignment is None} <= assignments.keys()
    (endpoint,) = assignments["cart|v1"].endpoints
    assert endpoint.address == Address("10.0.0.1", 15006)
    assert dict(endpoint.labels)["version"] == "v1"
