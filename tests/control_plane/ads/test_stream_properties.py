"""Any interleaving: the client ends with the snapshot, and is never told of a cluster that it has not."""

from __future__ import annotations

from collections import deque

from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from control_plane.ads.stream import Request, Response, Stream
from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPES, Resource, Snapshot, Table

NAMES = ("a", "b", "c", "d")
BAD = "bad"  # the content that this client refuses

contents = st.sampled_from(["", "1", "2", BAD])


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    clusters = draw(st.dictionaries(st.sampled_from(NAMES), contents, max_size=4))
    endpoints = {name: draw(contents) for name in clusters}
    used = draw(st.sets(st.sampled_from(sorted(clusters)))) if clusters else set()
    inline = draw(st.sets(st.sampled_from(sorted(clusters)))) if clusters else set()
    return make(clusters, endpoints, used, inline, draw(contents), draw(contents))


def make(clusters, endpoints, used, inline, routes, listeners) -> Snapshot:
    def pack(kind: str, name: str, content: str, references=()) -> Resource:
        value = f"{kind} {name} {content} {sorted(references)}"
        return Resource.pack(name, StringValue(value=value), references)

    return Snapshot(
        {
            CLUSTER: Table(pack("c", n, c, [(ENDPOINT, n)]) for n, c in clusters.items()),
            ENDPOINT: Table(pack("e", n, c) for n, c in endpoints.items()),
            ROUTE: Table([pack("r", "outbound", routes, [(CLUSTER, n) for n in used])]),
            LISTENER: Table([pack("l", "outbound", listeners, [(ROUTE, "outbound"), *((CLUSTER, n) for n in inline)])]),
        }
    )


GOOD = make({"a": ""}, {"a": ""}, {"a"}, set(), "", "")


class Conversation(RuleBasedStateMachine):
    """A client like Envoy: all clusters and listeners, endpoints of its clusters, routes of its listeners."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.stream = Stream(GOOD)
        self.wire: deque[Response] = deque()  # sent by the server, not read by the client
        self.has: dict[str, dict[str, Resource]] = {type_url: {} for type_url in TYPES}
        self.nonces = dict.fromkeys(TYPES, "")
        self.versions = dict.fromkeys(TYPES, "")
        self.unanswered: deque[Response] = deque()
        self.subscribed: set[str] = set()
        self.refuses = True
        self.partial = False

    # ---- the client

    def names(self, type_url: str) -> tuple[str, ...]:
        if type_url == ENDPOINT:
            return tuple(sorted(self.has[CLUSTER]))
        if type_url == ROUTE:
            return ("outbound",) if self.has[LISTENER] else ()
        return ()

    def request(self, type_url: str, error: str | None = None) -> None:
        self.subscribed.add(type_url)
        names = self.names(type_url)
        self.stream.receive(Request(type_url, names, self.versions[type_url], self.nonces[type_url], error))

    def take(self) -> None:
        response = self.wire.popleft()
        kind, resources = response.type_url, response.selection.by_name
        assert kind in self.subscribed
        assert response.nonce != self.nonces[kind]
        self.nonces[kind] = response.nonce
        whole = kind in (CLUSTER, LISTENER)
        bad = {n for n, it in resources.items() if f" {BAD} ".encode() in it.body}
        if self.refuses and bad:
            if self.partial:  # as Envoy does: what is good in it counts
                good = {n: it for n, it in resources.items() if n not in bad}
                kept = {n: it for n, it in self.has[kind].items() if n in bad or not whole}
                self.has[kind] = {**kept, **good}
            self.request(kind, f"{BAD} in it")
            return
        self.has[kind] = dict(resources) if whole else {**self.has[kind], **resources}
        self.versions[kind] = response.selection.version
        if kind == CLUSTER:
            self.has[ENDPOINT] = {n: it for n, it in self.has[ENDPOINT].items() if n in self.has[CLUSTER]}
        self.request(kind)
        if kind == CLUSTER and (ENDPOINT in self.subscribed or self.names(ENDPOINT)):
            self.request(ENDPOINT)
        if kind == LISTENER and (ROUTE in self.subscribed or self.names(ROUTE)):
            self.request(ROUTE)

    def flush(self) -> None:
        sent = self.stream.responses(self.now)
        for response in sent:
            waiting = [it.type_url for it in self.wire]
            assert response.type_url not in waiting  # at most one pending of a type
            self.wire.append(response)

    # ---- what may happen, in any order

    @precondition(lambda self: CLUSTER not in self.subscribed)
    @rule()
    def connect(self) -> None:
        self.request(CLUSTER)
        self.request(LISTENER)

    @rule(partial=st.booleans())
    def client_is_of_another_kind(self, partial: bool) -> None:
        self.partial = partial

    @rule(snapshot=snapshots())
    def change(self, snapshot: Snapshot) -> None:
        assert snapshot.consistent() == []
        self.stream.update(snapshot)

    @rule()
    def serve(self) -> None:
        self.flush()

    @precondition(lambda self: self.wire)
    @rule()
    def client_reads(self) -> None:
        self.take()

    @precondition(lambda self: self.subscribed)
    @rule(type_url=st.sampled_from(TYPES))
    def client_repeats_itself(self, type_url: str) -> None:
        if type_url in self.subscribed:
            self.stream.receive(Request(type_url, ("x",), "", "an old nonce"))

    @rule(seconds=st.sampled_from([0.1, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # ---- what must hold

    @invariant()
    def no_route_names_a_cluster_that_is_not_there(self) -> None:
        for type_url in (ROUTE, LISTENER):
            for it in self.has[type_url].values():
                for kind, name in it.references:
                    if kind == CLUSTER:
                        assert name in self.has[CLUSTER], f"{type_url} names {name}"

    def teardown(self) -> None:
        """Left alone, with content that it takes, the client converges and the server falls silent."""
        if not self.subscribed:
            return
        for final in (
            self.stream.snapshot,
            make({"b": "", "c": "1"}, {"b": "", "c": ""}, {"c"}, {"b"}, "", ""),
        ):
            self.refuses = final is self.stream.snapshot
            self.stream.update(final)
            self.settle()
        self.no_route_names_a_cluster_that_is_not_there()
        for type_url in TYPES:
            table = final.tables[type_url].by_name
            assert {n: it.version for n, it in self.has[type_url].items()} == {n: it.version for n, it in table.items()}
            assert self.stream.subscriptions[type_url].error == ""

    def settle(self) -> None:
        for _ in range(50):
            self.flush()
            if not self.wire:
                deadline = self.stream.deadline()
                if deadline is None:
                    return
                self.now = deadline
                continue
            self.take()
            self.no_route_names_a_cluster_that_is_not_there()
        raise AssertionError("the conversation does not end")


TestConversation = Conversation.TestCase


def test_what_a_refusal_before_the_last_one_named_is_not_taken_away() -> None:
    """A client that takes what is good in each refused listener update still names cluster b from the first of two."""
    stream = Stream(GOOD)
    nonces: dict[str, str] = {}

    def serve(**errors: str) -> dict[str, Response]:
        """Answer everything that is sent, until nothing is; the last response of each type."""
        seen: dict[str, Response] = {}
        while sent := stream.responses(100.0):
            for response in sent:
                kind = response.type_url
                seen[kind], nonces[kind] = response, response.nonce
                error = errors.get("listeners") if kind == LISTENER else None
                names = ("a", "b") if kind == ENDPOINT else ()
                stream.receive(Request(kind, names, "", response.nonce, error))
        return seen

    stream.receive(Request(CLUSTER, (), "", "", None))
    stream.receive(Request(ENDPOINT, ("a", "b"), "", "", None))
    stream.receive(Request(LISTENER, (), "", "", None))
    serve()
    both = {"a": "", "b": ""}
    stream.update(make(both, both, set(), {"b"}, "", "1"))
    (listener,) = serve(listeners="refused in part")[LISTENER].selection.by_name.values()
    assert (CLUSTER, "b") in listener.references
    stream.update(make(both, both, set(), set(), "", "2"))
    assert LISTENER in serve(listeners="refused again")
    stream.update(make({"a": ""}, {"a": ""}, set(), set(), "", "2"))
    clusters = serve().get(CLUSTER)
    assert clusters is None or "b" in clusters.selection.by_name
    stream.update(make({"a": ""}, {"a": ""}, set(), set(), "", "3"))
    assert set(serve()[CLUSTER].selection.by_name) == {"a"}  # an acknowledged listener ends it
