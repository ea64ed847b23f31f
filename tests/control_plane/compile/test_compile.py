"""What the mesh becomes: names, precedence, and how little a change costs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from envoy.config.core.v3.base_pb2 import Node
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from control_plane import mesh
from control_plane.compile import Client, ClientError, Compiler, rds
from control_plane.leases import Instance
from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPES, Snapshot

CLIENT = Client("cart", 8080)
VERSIONS = "{v1: {labels: {version: v1}}, v2: {labels: {version: v2, zone: a}}}"


def services(*texts: str) -> dict[str, mesh.ServiceDocument]:
    found = mesh.parse([("mesh", f"kind: Service\n{text}") for text in texts])
    mesh.validate(found)
    return {it.name: it for it in found}


def by_key(*instances: Instance) -> dict[tuple[str, str], Instance]:
    return {it.key: it for it in instances}


def compiled(*texts: str, instances: Iterable[Instance] = ()) -> Snapshot:
    compiler = Compiler("pillion.local")
    compiler.update(services(*texts), by_key(*instances))
    snapshot = compiler.snapshot(CLIENT)
    assert snapshot.consistent() == []
    return snapshot


def routes(text: str) -> list[tuple[str, str]]:
    """(name, path) in the order in which Envoy tries them."""
    (document,) = services(text).values()
    return [
        (it.name, it.match.path or it.match.safe_regex.regex or it.match.path_separated_prefix or it.match.prefix)
        for it in rds.routes(document.service)
    ]


def assignments(snapshot: Snapshot) -> dict[str, ClusterLoadAssignment]:
    return {
        name: ClusterLoadAssignment.FromString(Any.FromString(it.body).value)
        for name, it in snapshot.tables[ENDPOINT].by_name.items()
    }


def test_names() -> None:
    snapshot = compiled(f"name: cart\nversions: {VERSIONS}", "name: payments")
    assert set(snapshot.tables[LISTENER].by_name) == {"inbound", "outbound"}
    assert set(snapshot.tables[ROUTE].by_name) == {"outbound"}
    assert set(snapshot.tables[CLUSTER].by_name) == {"cart", "cart|v1", "cart|v2", "inbound", "payments"}
    assert set(snapshot.tables[ENDPOINT].by_name) == {"cart", "cart|v1", "cart|v2", "payments"}
    packed = Any.FromString(snapshot.tables[ROUTE].by_name["outbound"].body)
    outbound = RouteConfiguration.FromString(packed.value)
    assert [list(host.domains) for host in outbound.virtual_hosts] == [
        ["cart", "cart.pillion.local"],
        ["payments", "payments.pillion.local"],
    ]
    (route,) = outbound.virtual_hosts[0].routes
    assert (route.name, route.match.prefix, route.route.cluster) == ("default", "/", "cart")
    retry = route.route.retry_policy
    assert (route.route.timeout.seconds, retry.num_retries.value) == (15, 2)
    # What may have been acted on is repeated only by who can tell that this is safe.
    assert retry.retry_on == "connect-failure,refused-stream,reset-before-request"
    assert dict(route.metadata.filter_metadata["pillion"]) == {"retry_on_when_safe": "reset,retriable-status-codes"}
    assert list(retry.retriable_status_codes) == [503]


def test_endpoints_belong_to_the_versions_whose_labels_they_carry() -> None:
    one = Instance("cart", "1", "10.0.0.1", 1, {"version": "v1"}, 3)
    two = Instance("cart", "2", "10.0.0.2", 1, {"version": "v2", "zone": "a"})
    other = Instance("cart", "3", "10.0.0.3", 1, {"version": "v2"})
    elsewhere = Instance("unknown", "1", "10.0.0.9", 1)
    snapshot = compiled(f"name: cart\nversions: {VERSIONS}", instances=[one, two, other, elsewhere])
    found = {
        name: [
            (
                endpoint.endpoint.address.socket_address.address,
                endpoint.load_balancing_weight.value,
                dict(endpoint.metadata.filter_metadata["pillion"]),
            )
            for locality in assignment.endpoints
            for endpoint in locality.lb_endpoints
        ]
        for name, assignment in assignments(snapshot).items()
    }
    first = ("10.0.0.1", 3, {"instance": "1", "version": "v1"})
    second = ("10.0.0.2", 1, {"instance": "2", "version": "v2", "zone": "a"})
    third = ("10.0.0.3", 1, {"instance": "3", "version": "v2"})
    assert found == {"cart": [first, second, third], "cart|v1": [first], "cart|v2": [second]}


def test_gateway_api_precedence() -> None:
    text = """name: cart
routes:
  - {name: all, backendRefs: [{name: cart}]}
  - name: mixed
    backendRefs: [{name: cart}]
    matches:
      - {path: {value: /a}}
      - {path: {value: /a/b/}}
      - {path: {type: RegularExpression, value: /x.*}}
      - {path: {type: Exact, value: /e}}
      - {method: GET}
      - {headers: [{name: h, value: "1"}]}
      - {headers: [{name: h, value: "1"}, {name: i, value: "1"}]}
      - {queryParams: [{name: q, value: "1"}]}
  - {name: late, matches: [{path: {value: /a}}], backendRefs: [{name: cart}]}
"""
    assert routes(text) == [
        ("mixed", "/e"),
        ("mixed", "/x.*"),
        ("mixed", "/a/b"),
        ("mixed", "/a"),
        ("late", "/a"),
        ("mixed", "/"),  # GET
        ("mixed", "/"),  # two headers
        ("mixed", "/"),  # one header
        ("mixed", "/"),  # a query parameter
        ("all", "/"),
    ]


def test_weights() -> None:
    refs = "[{name: cart, weight: 3}, {name: cart}, {name: pay, weight: 0}, {name: shop, weight: 2}]"
    found = services(f"name: cart\nroutes: [{{backendRefs: {refs}}}]", "name: pay", "name: shop")
    (route,) = rds.routes(found["cart"].service)
    shares = route.route.weighted_clusters.clusters
    assert [(it.name, it.weight.value) for it in shares] == [("cart", 4), ("shop", 2)]
    assert rds.clusters(found["cart"].service) == {"cart", "shop"}


def test_a_change_touches_only_what_it_is_about() -> None:
    compiler = Compiler("pillion.local")
    mesh_1 = services("name: cart", "name: pay", "name: shop")
    one, two = Instance("cart", "1", "10.0.0.1", 1), Instance("pay", "1", "10.0.0.2", 1)
    compiler.update(mesh_1, by_key(one, two))
    before = compiler.snapshot(CLIENT)
    compiler.update(mesh_1, by_key(one, two))
    assert compiler.snapshot(CLIENT) is before
    compiler.update(mesh_1, by_key(one, Instance("pay", "1", "10.0.0.3", 1)))
    after = compiler.snapshot(CLIENT)
    for type_url in (CLUSTER, LISTENER, ROUTE):
        assert after.tables[type_url] is before.tables[type_url]
    changed = {
        name for name, it in after.tables[ENDPOINT].by_name.items() if it is not before.tables[ENDPOINT].by_name[name]
    }
    assert changed == {"pay"}
    compiler.update(mesh_1 | services("name: new"), by_key(one, two))
    assert compiler.snapshot(CLIENT).tables[CLUSTER].by_name["pay"] is before.tables[CLUSTER].by_name["pay"]
    compiler.update(services("name: cart"), by_key(one))
    assert set(compiler.snapshot(CLIENT).tables[CLUSTER].by_name) == {"cart", "inbound"}


names = st.sampled_from(["cart", "pay", "shop", "web"])
instances = st.builds(
    Instance,
    names,
    st.sampled_from("123"),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.just(1),
    st.dictionaries(st.just("version"), st.sampled_from(["v1", "v2"])),
)
meshes = st.tuples(st.sets(names), st.booleans(), st.lists(instances, max_size=4))


@given(st.lists(meshes, min_size=1, max_size=4))
def test_incremental_is_the_same_as_from_scratch(steps: list[tuple[set[str], bool, list[Instance]]]) -> None:
    """So versions are the same on every replica, whatever it has seen before."""
    incremental = Compiler("pillion.local")
    for wanted, versions, found in steps:
        extra = f"\nversions: {VERSIONS}" if versions else ""
        documents = services(*(f"name: {name}{extra}" for name in sorted(wanted))) if wanted else {}
        serving = dict(sorted(by_key(*found).items()))
        incremental.update(documents, serving)
        fresh = Compiler("pillion.local")
        fresh.update(documents, serving)
        one, two = incremental.snapshot(CLIENT), fresh.snapshot(CLIENT)
        assert one.consistent() == []
        for type_url in TYPES:
            assert one.tables[type_url].everything().version == two.tables[type_url].everything().version


def test_a_client_from_its_node() -> None:
    node = Node(id="cart~1", cluster="cart")
    assert Client.from_node(node) == Client("cart", 8080, 15006, 15001)
    node.metadata.update({"app_port": 9000, "inbound_port": 0, "outbound_port": 1})
    assert Client.from_node(node) == Client("cart", 9000, 0, 1)


@pytest.mark.parametrize("value", ["80", 80.5, -1, 65536, float("nan"), float("inf"), True, 0])
def test_a_node_with_a_bad_port(value: object) -> None:
    node = Node(id="cart~1", cluster="cart")
    node.metadata.update({"app_port": value})
    with pytest.raises(ClientError, match=r"node\.metadata\.app_port is not a port"):
        Client.from_node(node)


TCP = "name: db\nprotocol: tcp\nlocalPort: 15432"


def listeners(snapshot: Snapshot) -> dict[str, tuple[str, int, Message]]:
    """Address, port and terminal filter by name."""
    found = {}
    for name, resource in snapshot.tables[LISTENER].by_name.items():
        listener = Listener.FromString(Any.FromString(resource.body).value)
        (chain,) = listener.filter_chains
        (entry,) = chain.filters
        kind = TcpProxy() if entry.name.endswith("tcp_proxy") else HttpConnectionManager()
        assert entry.typed_config.Unpack(kind)
        where = listener.address.socket_address
        found[name] = (where.address, where.port_value, kind)
    return found


def test_websocket_passes_both_ways_and_connect_neither() -> None:
    found = listeners(compiled("name: cart", "name: db"))
    assert set(found) == {"inbound", "outbound"}
    for _, _, manager in found.values():
        assert [(config.upgrade_type, config.HasField("enabled")) for config in manager.upgrade_configs] == [
            ("websocket", False)
        ]


def test_a_tcp_service_is_offered_on_its_local_port() -> None:
    found = listeners(compiled("name: cart", TCP))
    address, port, relay = found["outbound|db"]
    assert (address, port, relay.cluster, relay.max_connect_attempts.value) == ("127.0.0.1", 15432, "db", 3)
    assert isinstance(found["inbound"][2], HttpConnectionManager)
    packed = compiled("name: cart", TCP).tables[ROUTE].by_name["outbound"].body
    hosts = RouteConfiguration.FromString(Any.FromString(packed).value).virtual_hosts
    assert [host.name for host in hosts] == ["cart"]  # nobody speaks HTTP to a tcp service


def test_its_own_sidecar_takes_bytes_in_and_does_not_offer_it() -> None:
    compiler = Compiler("pillion.local")
    compiler.update(services("name: cart", TCP), {})
    found = listeners(compiler.snapshot(Client("db", 5432)))
    assert set(found) == {"inbound", "outbound"}
    assert found["inbound"][:2] == ("0.0.0.0", 15006)
    assert (found["inbound"][2].cluster, found["inbound"][2].max_connect_attempts.value) == ("inbound", 1)
    compiler.update(services("name: cart", "name: db"), {})
    assert isinstance(listeners(compiler.snapshot(Client("db", 5432)))["inbound"][2], HttpConnectionManager)


def test_weights_of_a_tcp_service() -> None:
    text = f"{TCP}\nversions: {VERSIONS}\nroutes: [{{backendRefs: [{{name: db, version: v1, weight: 3}}, {{name: db, version: v2}}]}}]"
    relay = listeners(compiled(text, "name: cart"))["outbound|db"][2]
    assert [(it.name, it.weight) for it in relay.weighted_clusters.clusters] == [("db|v1", 3), ("db|v2", 1)]


def test_an_http_service_may_have_a_local_port() -> None:
    text = "name: pay\nlocalPort: 9000\nroutes: [{name: r, backendRefs: [{name: pay}], timeouts: {request: 2s}}]"
    address, port, manager = listeners(compiled("name: cart", text))["outbound|pay"]
    (host,) = manager.route_config.virtual_hosts
    assert (address, port, list(host.domains)) == ("127.0.0.1", 9000, ["*"])
    assert [(it.name, it.route.cluster, it.route.timeout.seconds) for it in host.routes] == [("r", "pay", 2)]


def test_a_local_port_comes_goes_and_costs_only_listeners() -> None:
    compiler = Compiler("pillion.local")
    compiler.update(services("name: cart", "name: pay"), {})
    before = compiler.snapshot(CLIENT)
    compiler.update(services("name: cart", "name: pay\nlocalPort: 9000"), {})
    with_port = compiler.snapshot(CLIENT)
    assert set(with_port.tables[LISTENER].by_name) == {"inbound", "outbound", "outbound|pay"}
    assert with_port.tables[CLUSTER] is before.tables[CLUSTER]
    compiler.update(services("name: cart", "name: pay"), {})
    assert set(compiler.snapshot(CLIENT).tables[LISTENER].by_name) == {"inbound", "outbound"}
