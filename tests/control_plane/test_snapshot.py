"""Versions depend on content alone; references are checked; bytes are shared."""

from __future__ import annotations

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from control_plane.snapshot import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    MAX_SELECTIONS,
    ROUTE,
    Resource,
    Snapshot,
    Table,
    encode_nonce,
)

contents = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4)


def table(content: dict[str, str]) -> Table:
    return Table(Resource.pack(name, StringValue(value=value)) for name, value in content.items())


@given(contents, contents)
def test_versions_are_equal_exactly_when_the_content_is(one: dict[str, str], two: dict[str, str]) -> None:
    assert (table(one).everything().version == table(two).everything().version) == (one == two)


@given(contents)
def test_the_order_of_fields_and_resources_does_not_matter(content: dict[str, str]) -> None:
    forward, backward = Struct(), Struct()
    forward.update(content)
    backward.update(dict(reversed(content.items())))
    assert Resource.pack("x", forward) == Resource.pack("x", backward)
    mirrored = table(dict(reversed(content.items())))
    assert table(content).everything().encode(CLUSTER) == mirrored.everything().encode(CLUSTER)


def test_a_selection_is_shared_and_encoded_once() -> None:
    both = table({"a": "1", "b": "2"})
    assert both.select(frozenset("a")) is both.select(frozenset("a"))
    assert both.everything().encode(CLUSTER) is both.everything().encode(CLUSTER)
    assert set(both.select(frozenset({"a", "unknown"})).by_name) == {"a"}


def test_the_memory_of_selections_is_bounded() -> None:
    both = table({"a": "1"})
    for i in range(MAX_SELECTIONS * 3):
        both.select(frozenset({"a", str(i)}))
    assert len(both._selections) <= MAX_SELECTIONS


def test_a_response_is_body_and_nonce() -> None:
    selection = table({"a": "1"}).everything()
    response = DiscoveryResponse.FromString(selection.encode(CLUSTER) + encode_nonce("7"))
    assert (response.version_info, response.nonce, response.type_url) == (selection.version, "7", CLUSTER)
    value = StringValue()
    assert response.resources[0].Unpack(value)
    assert value.value == "1"


def test_dangling_references_are_named() -> None:
    def one(*references: tuple[str, str]) -> Table:
        return Table([Resource.pack("x", StringValue(), references)])

    snapshot = Snapshot(
        {
            LISTENER: one((ROUTE, "outbound")),
            ROUTE: one((CLUSTER, "x"), (CLUSTER, "cart")),
            CLUSTER: one((ENDPOINT, "x")),
            ENDPOINT: Table(),
        }
    )
    assert snapshot.consistent() == [
        "Listener 'x' refers to RouteConfiguration 'outbound', which does not exist",
        "RouteConfiguration 'x' refers to Cluster 'cart', which does not exist",
        "Cluster 'x' refers to ClusterLoadAssignment 'x', which does not exist",
    ]
