"""The state-of-the-world stream: cases one by one, then any interleaving."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from control_plane.ads import stream as ads
from control_plane.ads.stream import Request, Response, Stream, StreamError
from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPES, Resource, Snapshot, Table


def resource(name: str, content: str = "", references: tuple[tuple[str, str], ...] = ()) -> Resource:
    return Resource.pack(name, StringValue(value=f"{name} {content} {sorted(references)}"), references)


def snapshot(
    clusters: tuple[str, ...] = (),
    used: tuple[str, ...] | None = None,
    endpoints: str = "",
    cluster: str = "",
) -> Snapshot:
    """Clusters with their endpoints, one route configuration that uses some of them, one listener."""
    used = clusters if used is None else used
    return Snapshot(
        {
            CLUSTER: Table(resource(name, cluster, ((ENDPOINT, name),)) for name in clusters),
            ENDPOINT: Table(resource(name, endpoints) for name in clusters),
            LISTENER: Table([resource("outbound", "", ((ROUTE, "outbound"),))]),
            ROUTE: Table([resource("outbound", "", tuple((CLUSTER, name) for name in used))]),
        }
    )


def ack(stream: Stream, response: Response, names: tuple[str, ...] = (), error: str | None = None) -> None:
    stream.receive(Request(response.type_url, names, response.selection.version, response.nonce, error))


def subscribed(first: Snapshot, names: tuple[str, ...]) -> Stream:
    """A stream that has acknowledged all of `first`."""
    stream = Stream(first)
    for type_url in TYPES:
        stream.receive(Request(type_url, wanted(type_url, names)))
        for response in stream.responses(0):
            ack(stream, response, wanted(response.type_url, names))
    assert stream.responses(0) == []
    return stream


def wanted(type_url: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return {ENDPOINT: names, ROUTE: ("outbound",)}.get(type_url, ())


def kinds(responses: list[Response]) -> list[str]:
    return [response.type_url for response in responses]


def test_first_requests_are_answered_in_make_before_break_order() -> None:
    stream = Stream(snapshot(("a", "b")))
    for type_url in reversed(TYPES):
        stream.receive(Request(type_url, wanted(type_url, ("a", "b"))))
    first = stream.responses(0)
    assert kinds(first) == [CLUSTER, ENDPOINT, LISTENER]
    assert len({response.nonce for response in first}) == 3
    assert stream.responses(0) == []  # one unanswered response of a type is enough
    for response in first:
        ack(stream, response, wanted(response.type_url, ("a", "b")))
    assert kinds(stream.responses(0)) == [ROUTE]  # now that its clusters are there


def test_an_ack_is_not_answered_and_only_what_changed_is_sent() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a",)))  # the same content in other objects, as after a restart
    assert stream.responses(0) == []
    stream.update(snapshot(("a",), endpoints="moved"))
    assert kinds(stream.responses(0)) == [ENDPOINT]


def test_newest_wins_while_a_response_is_unanswered() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a",), endpoints="1"))
    (first,) = stream.responses(0)
    for i in range(2, 10):
        stream.update(snapshot(("a",), endpoints=str(i)))
        assert stream.responses(0) == []
    ack(stream, first, ("a",))
    (second,) = stream.responses(0)
    assert (
        second.selection.by_name["a"].version == snapshot(("a",), endpoints="9").tables[ENDPOINT].by_name["a"].version
    )


def test_a_stale_nonce_is_ignored() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a",), endpoints="new"))
    (response,) = stream.responses(0)
    stream.receive(Request(ENDPOINT, (), "x", "no such nonce"))
    assert stream.subscriptions[ENDPOINT].names == {"a"}
    assert stream.subscriptions[ENDPOINT].pending
    assert stream.counters.stale[ENDPOINT] == 1
    ack(stream, response, ("a",))
    assert not stream.subscriptions[ENDPOINT].pending


def test_a_nack_is_kept_with_its_reason_and_not_repeated_until_the_content_changes() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    acked = stream.subscriptions[CLUSTER].acked
    stream.update(snapshot(("a",), cluster="bad"))
    (response,) = stream.responses(0)
    ack(stream, response, error="cluster a: field x")
    assert stream.responses(0) == []
    status = {it.type_url: it for it in stream.status()}[CLUSTER]
    assert (status.sent_version, status.error) == (response.selection.version, "cluster a: field x")
    assert acked is not None
    assert status.acked_version == acked.version
    stream.update(snapshot(("a",), cluster="bad"))
    assert stream.responses(0) == []
    stream.update(snapshot(("a",), cluster="good"))
    (response,) = stream.responses(0)
    ack(stream, response)
    assert {it.type_url: it.error for it in stream.status()}[CLUSTER] == ""


def test_going_back_to_what_was_acknowledged_clears_a_nack() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a",), cluster="bad"))
    (response,) = stream.responses(0)
    ack(stream, response, error="no")
    stream.update(snapshot(("a",)))
    (response,) = stream.responses(0)
    ack(stream, response)
    assert [it.error for it in stream.status()] == ["", "", "", ""]


def test_new_names_are_answered_and_dropped_names_are_not() -> None:
    stream = subscribed(snapshot(("a", "b"), used=("a",)), ("a",))
    nonce = stream.subscriptions[ENDPOINT].nonce
    stream.receive(Request(ENDPOINT, ("a", "b"), response_nonce=nonce))
    (response,) = stream.responses(0)
    assert set(response.selection.by_name) == {"a", "b"}
    ack(stream, response, ("a", "b"))
    ack(stream, response, ("a",))
    assert stream.responses(0) == []
    ack(stream, response, ("a", "b"))
    assert kinds(stream.responses(0)) == [ENDPOINT]


def test_a_name_that_does_not_exist_is_answered_once_it_does() -> None:
    stream = Stream(snapshot(("a",)))
    stream.receive(Request(ENDPOINT, ("b",)))
    assert stream.responses(0) == []
    stream.update(snapshot(("a", "b")))
    (response,) = stream.responses(0)
    assert set(response.selection.by_name) == {"b"}


def test_types_without_a_subscription_are_not_pushed() -> None:
    stream = Stream(snapshot(("a",)))
    stream.receive(Request(CLUSTER))
    (response,) = stream.responses(0)
    ack(stream, response)
    stream.update(snapshot(("a",), endpoints="new", cluster="new"))
    assert kinds(stream.responses(0)) == [CLUSTER]


def test_an_unknown_type_is_not_answered() -> None:
    stream = Stream(snapshot(("a",)))
    stream.receive(Request("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", ("x",)))
    assert stream.responses(0) == []
    assert stream.subscriptions == {}


@pytest.mark.parametrize("star", [(), ("*",)])
def test_wildcard(star: tuple[str, ...]) -> None:
    stream = Stream(snapshot(("a", "b")))
    stream.receive(Request(CLUSTER, star))
    (response,) = stream.responses(0)
    assert set(response.selection.by_name) == {"a", "b"}


def test_no_names_after_names_mean_nothing() -> None:
    stream = Stream(snapshot(("a", "b")))
    stream.receive(Request(CLUSTER, ("a",)))
    (response,) = stream.responses(0)
    assert set(response.selection.by_name) == {"a"}
    ack(stream, response, ())
    assert not stream.subscriptions[CLUSTER].wildcard


def test_a_new_cluster_comes_with_its_endpoints_before_the_route_that_names_it() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a", "b")))
    (clusters,) = stream.responses(0)
    assert clusters.type_url == CLUSTER
    ack(stream, clusters)
    assert stream.responses(0) == []  # the client will now ask for b's endpoints
    stream.receive(Request(ENDPOINT, ("a", "b"), response_nonce=stream.subscriptions[ENDPOINT].nonce))
    (endpoints,) = stream.responses(0)
    assert endpoints.type_url == ENDPOINT
    ack(stream, endpoints, ("a", "b"))
    assert kinds(stream.responses(0)) == [ROUTE]
    assert stream.deadline() is None


def test_a_client_that_does_not_ask_for_endpoints_gets_its_routes_after_a_while() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a", "b")))
    (clusters,) = stream.responses(0)
    ack(stream, clusters)
    assert stream.responses(10) == []
    assert stream.deadline() == 10 + ads.WARMING
    assert stream.responses(10 + ads.WARMING / 2) == []
    assert kinds(stream.responses(10 + ads.WARMING)) == [ROUTE]
    assert stream.deadline() is None


def test_a_refused_cluster_holds_back_the_route_that_names_it() -> None:
    stream = subscribed(snapshot(("a",)), ("a",))
    stream.update(snapshot(("a", "b")))
    (clusters,) = stream.responses(0)
    ack(stream, clusters, error="b is bad")
    assert stream.responses(0) == stream.responses(1000) == []


def test_a_cluster_goes_only_after_the_routes_that_named_it() -> None:
    stream = subscribed(snapshot(("a", "b")), ("a", "b"))
    stream.update(snapshot(("a",)))
    (routes,) = stream.responses(0)
    assert routes.type_url == ROUTE
    ack(stream, routes, ("outbound",))
    (clusters,) = stream.responses(0)
    assert (clusters.type_url, set(clusters.selection.by_name)) == (CLUSTER, {"a"})


def test_a_cluster_stays_while_the_client_refuses_to_let_its_route_go() -> None:
    stream = subscribed(snapshot(("a", "b")), ("a", "b"))
    stream.update(snapshot(("a",), cluster="new"))
    clusters, routes = stream.responses(0)
    assert set(clusters.selection.by_name) == {"a", "b"}
    ack(stream, clusters)
    ack(stream, routes, ("outbound",), error="no")
    assert stream.responses(0) == []


def test_a_client_that_asks_for_clusters_by_name_gets_routes_first() -> None:
    """As gRPC does: LDS, RDS, then CDS for the names seen there."""
    stream = Stream(snapshot(("a",)))
    stream.receive(Request(LISTENER, ("outbound",)))
    stream.receive(Request(ROUTE, ("outbound",)))
    stream.receive(Request(CLUSTER, ("a",)))
    assert kinds(stream.responses(0)) == [CLUSTER, LISTENER, ROUTE]


def test_bounds() -> None:
    stream = Stream(snapshot(("a",)))
    with pytest.raises(StreamError, match="at most"):
        stream.receive(Request(ENDPOINT, ["x"] * (ads.MAX_NAMES + 1)))
    with pytest.raises(StreamError, match="at most"):
        stream.receive(Request(ENDPOINT, ["x" * (ads.MAX_NAME + 1)]))
    stream.receive(Request(ENDPOINT, [f"name {i}" for i in range(10_000)]))
    assert stream.responses(0) == []


def test_a_flood_is_slowed_to_the_rate() -> None:
    stream = Stream(snapshot())
    now = 0.0
    for _ in range(10_000):
        now += stream.throttle(now)
    assert now == pytest.approx((10_000 - ads.BURST) / ads.RATE, rel=0.05)
    assert stream.throttle(now + 1000) == 0


def test_a_refused_route_counts_as_held_because_a_client_may_have_applied_a_part() -> None:
    stream = subscribed(snapshot(("a", "b"), used=("a",)), ("a", "b"))
    stream.update(snapshot(("a", "b")))
    (routes,) = stream.responses(0)
    ack(stream, routes, ("outbound",), error="no")
    stream.update(snapshot(("a",)))
    (routes,) = stream.responses(0)
    assert routes.type_url == ROUTE  # and no CDS without b
    ack(stream, routes, ("outbound",))
    assert kinds(stream.responses(0)) == [CLUSTER]
