"""HTTP/1.1 and HTTP/2 joined in every way: what the client speaks, what the two sidecars speak to each other, what the
app speaks. The same requests must arrive, and the same answers, whichever it is; also with the real Envoy in either seat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import grpc_h1, grpc_mesh, grpc_wire
from tests.support.grpc_wire import App, Message, Reply
from tests.support.harness import harness
from tests.support.sidecars import Pair

MIB = 1024 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
LARGE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(8 * MIB // 32))


def app(request: Message) -> Reply:
    """The app, in both protocols."""
    method, path = request.pseudo[":method"], request.pseudo[":path"].partition("?")[0]
    if path == "/trailers":
        return Reply(body=b"data", trailers=[("x-checksum", "abc"), ("grpc-status", "0")], length=False)
    if path == "/only-trailers":
        return Reply(trailers=[("x-checksum", "abc")], length=False)
    if path == "/no-length":
        return Reply(body=b"y" * 100_000, length=False)
    if path == "/cookies":
        return Reply(headers=[("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2")])
    if path == "/hints":
        return Reply(body=b"page", interim=[(103, [("link", "</style.css>; rel=preload")])])
    if path == "/empty":
        return Reply(204, [("x-answer", "none")], None)
    if path == "/unchanged":
        return Reply(304, [("etag", '"1"')], None)
    if path == "/teapot":
        return Reply(418, body=b"short and stout")
    if path == "/large":
        return Reply(body=LARGE)
    if path.startswith("/cut"):
        return Reply(body=b"half", length=False, cut=True)
    if method == "HEAD":
        return Reply(body=b"what GET would give")
    return Reply(body=bytes(request.body), headers=[("x-answer", "yes")])


@dataclass(frozen=True)
class Mesh:
    pair: Pair
    seats: grpc_mesh.Seats
    apps: dict[str, App]


@pytest.fixture(scope="module", params=grpc_mesh.pairs())
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with (
        harness(tmp_path_factory.mktemp("bridge")) as work,
        grpc_h1.h1_app(app) as one,
        grpc_wire.h2_app(app) as two,
    ):
        apps = {"one": one, "two": two}
        ports = {name: found.port for name, found in apps.items()}
        manager = {"upgrade_configs": [{"upgrade_type": "websocket"}], "delayed_close_timeout": "0.1s"}
        pair = grpc_mesh.start_pair(work, request.param, ports, http1=["one"], **manager)
        yield Mesh(pair, request.param, apps)


@dataclass(frozen=True)
class Way:
    """One of the eight."""

    mesh: Mesh
    client: str
    link: str
    app_name: str

    @property
    def authority(self) -> str:
        return f"{self.link}.{self.app_name}"

    @property
    def app(self) -> App:
        return self.mesh.apps[self.app_name]

    @property
    def port(self) -> int:
        return self.mesh.pair.front.listen

    @property
    def pure(self) -> bool:
        """Whether it is HTTP/2 from end to end."""
        return (self.client, self.link, self.app_name) == ("h2", "h2", "two")

    def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes] | None = None,
        trailers: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """A request and its answer, on a connection of its own; a body of bytes has a length, a sequence has none."""
        if self.client == "h1":
            with grpc_h1.Client(self.port) as client:
                return client.ask(method, self.authority, path, headers, body, trailers)
        with grpc_wire.Client(self.port) as client:
            if isinstance(body, bytes):
                return client.ask([*self.head(method, path, headers), ("content-length", str(len(body)))], body)
            return client.ask(self.head(method, path, headers), *(body or ()), trailers=trailers)

    def head(self, method: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> grpc_wire.Headers:
        """A request's head in HTTP/2."""
        pseudo = [(":method", method), (":scheme", "http"), (":authority", self.authority), (":path", path)]
        return [*pseudo, *headers]


@pytest.fixture(
    params=[(client, link, name) for client in ("h1", "h2") for link in ("h1", "h2") for name in ("one", "two")],
    ids="-".join,
)
def way(request: pytest.FixtureRequest, mesh: Mesh) -> Way:
    return Way(mesh, *request.param)


def test_a_request_without_a_body(way: Way) -> None:
    answer = way.ask("GET", "/plain?q=1&r=%2F", [("x-twice", "one"), ("x-twice", "two"), ("x-empty", "")])
    assert (answer.status, bytes(answer.body), answer.trailers) == (200, b"", None)
    assert answer.get("x-answer") == "yes"
    seen = way.app.last("/plain?q=1&r=%2F")
    assert (seen.pseudo[":method"], seen.pseudo[":authority"]) == ("GET", way.authority)
    assert seen.all("x-twice") in (["one", "two"], ["one,two"], ["one, two"])
    assert seen.get("x-empty") == ""
    assert (bytes(seen.body), seen.trailers) == (b"", None)
    assert seen.get("content-length") is None
    assert not HOP_BY_HOP & {name for name, _ in seen.headers}


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PATCH"])
def test_any_method(way: Way, method: str) -> None:
    assert way.ask(method, f"/method/{method}").status == 200
    assert way.app.last(f"/method/{method}").pseudo[":method"] == method


def test_a_body_with_a_length_keeps_it(way: Way) -> None:
    answer = way.ask("POST", "/sized", body=b"z" * 70_000)
    assert (answer.get("content-length"), bytes(answer.body)) == ("70000", b"z" * 70_000)
    seen = way.app.last("/sized")
    assert (seen.get("content-length"), bytes(seen.body)) == ("70000", b"z" * 70_000)
    assert seen.get("transfer-encoding") is None


def test_a_body_without_a_length_has_none(way: Way) -> None:
    """Chunks in HTTP/1.1, nothing but DATA in HTTP/2, both ways."""
    answer = way.ask("POST", "/no-length", body=[b"one", b"two" * 10_000])
    assert bytes(answer.body) == b"y" * 100_000
    assert answer.get("content-length") is None
    seen = way.app.last("/no-length")
    assert bytes(seen.body) == b"one" + b"two" * 10_000
    assert seen.get("content-length") is None
    assert seen.get("transfer-encoding") == ("chunked" if way.app_name == "one" else None)


def test_an_empty_body_without_a_length(way: Way) -> None:
    answer = way.ask("POST", "/hollow", body=[])
    assert (answer.status, bytes(answer.body)) == (200, b"")
    assert bytes(way.app.last("/hollow").body) == b""


def test_trailers_both_ways(way: Way) -> None:
    head = [("te", "trailers"), *([("connection", "te")] if way.client == "h1" else [])]
    answer = way.ask("POST", "/trailers", head, [b"body"], [("x-digest", "123"), ("x-second", "4")])
    assert bytes(answer.body) == b"data"
    assert answer.trailers == [("x-checksum", "abc"), ("grpc-status", "0")]
    seen = way.app.last("/trailers")
    assert (bytes(seen.body), seen.trailers) == (b"body", [("x-digest", "123"), ("x-second", "4")])
    assert seen.get("te") == "trailers"


def test_trailers_behind_no_body(way: Way) -> None:
    answer = way.ask("POST", "/only-trailers", [], [], [("x-digest", "123")])
    assert (bytes(answer.body), answer.trailers) == (b"", [("x-checksum", "abc")])
    assert way.app.last("/only-trailers").trailers == [("x-digest", "123")]


def test_head(way: Way) -> None:
    answer = way.ask("HEAD", "/head")
    assert (answer.status, answer.get("content-length"), bytes(answer.body)) == (200, "19", b"")
    assert way.app.last("/head").pseudo[":method"] == "HEAD"


def test_answers_that_cannot_have_a_body(way: Way) -> None:
    empty = way.ask("DELETE", "/empty")
    assert (empty.status, empty.get("x-answer"), bytes(empty.body)) == (204, "none", b"")
    assert empty.get("content-length") is None
    assert empty.get("transfer-encoding") is None
    unchanged = way.ask("GET", "/unchanged")
    assert (unchanged.status, unchanged.get("etag"), bytes(unchanged.body)) == (304, '"1"', b"")
    assert unchanged.get("transfer-encoding") is None


def test_any_status(way: Way) -> None:
    answer = way.ask("GET", "/teapot")
    assert (answer.status, bytes(answer.body)) == (418, b"short and stout")


def test_cookies(way: Way) -> None:
    """Crumbs (RFC 9113 §8.2.3) are one field where HTTP/1.1 is on the way; Set-Cookie is never joined."""
    crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]
    whole = [("cookie", "a=1; b=2; c=3")]
    answer = way.ask("GET", "/cookies", crumbs if way.client == "h2" else whole)
    assert answer.all("set-cookie") == ["a=1; Path=/", "b=2"]
    cookies = way.app.last("/cookies").all("cookie")
    assert "; ".join(cookies) == "a=1; b=2; c=3"
    assert way.pure or len(cookies) == 1


def test_expectation(way: Way) -> None:
    """100 comes before the body is sent; the app sees a plain request."""
    expect = ("expect", "100-continue")
    if way.client == "h1":
        with grpc_h1.Client(way.port) as client:
            client.head("POST", way.authority, "/expect", [expect], b"body")
            assert client.interim() == 100
            client.sock.sendall(b"body")
            answer = client.answer("POST")
    else:
        with grpc_wire.Client(way.port) as client2:
            stream = client2.send(way.head("POST", "/expect", [expect]), end=False)
            client2.until(stream, lambda message: message.interim == [100])
            client2.data(stream, b"body")
            client2.end(stream)
            answer = client2.answer(stream)
    assert (answer.status, bytes(answer.body)) == (200, b"body")
    assert bytes(way.app.last("/expect").body) == b"body"


def test_large_bodies(way: Way) -> None:
    answer = way.ask("PUT", "/large", body=LARGE)
    assert answer.body == LARGE
    assert way.app.last("/large").body == LARGE
    way.app.seen.clear()


def test_an_answer_that_breaks_off_is_not_taken_for_whole(way: Way) -> None:
    if way.client == "h2":
        answer = way.ask("GET", "/cut")
        assert answer.reset is not None
        return
    with pytest.raises((ValueError, AssertionError, ConnectionError)):  # the chunks end in the middle
        way.ask("GET", "/cut")


def test_connection_specific_fields_end_here(mesh: Mesh) -> None:
    """RFC 9113 §8.2.2: none of them may reach HTTP/2."""
    way = Way(mesh, "h1", "h2", "two")
    fields = [
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
    ]
    assert way.ask("GET", "/specific", fields).status == 200
    seen = {name for name, _ in way.app.last("/specific").headers}
    assert not (HOP_BY_HOP | {"te"}) & seen


def test_early_hints_pass(mesh: Mesh) -> None:
    """Envoy drops them."""
    if mesh.seats != grpc_mesh.PILLION:
        pytest.skip("only between two of ours")
    for client in ("h1", "h2"):
        for link in ("h1", "h2"):
            for name in ("one", "two"):
                answer = Way(mesh, client, link, name).ask("GET", "/hints")
                assert (answer.interim, answer.status, bytes(answer.body)) == ([103], 200, b"page")


# ---- WebSocket

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", KEY),
]


def joins(way: Way) -> str | None:
    """Who makes an upgrade of a CONNECT, or the reverse, if only one sidecar does."""
    if (way.client == "h1") == (way.app_name == "one"):
        return None
    return way.mesh.seats.back if way.link == way.client else way.mesh.seats.front


def test_websocket(way: Way) -> None:
    """Upgrade in HTTP/1.1, extended CONNECT in HTTP/2 (RFC 8441), one made of the other wherever they meet.

    Only HTTP/1.1 has a key and the answer to it (RFC 8441 §5). What its client needs, and its server, is made where they
    meet; Envoy leaves it out."""
    if way.client == "h1":
        with grpc_h1.Client(way.port) as client:
            client.head("GET", way.authority, "/chat", UPGRADE, None)
            answer = client.answer("GET")
            assert (answer.status, answer.get("upgrade")) == (101, "websocket")
            if joins(way) != "envoy":
                assert answer.get("sec-websocket-accept") == grpc_h1.accept(KEY)
            for part in (b"hello", b"again" * 2000):
                client.sock.sendall(part)
                assert client.file.read(len(part)) == part
    else:
        with grpc_wire.Client(way.port) as client2:
            assert client2.connect_protocol()
            head = way.head("CONNECT", "/chat", [UPGRADE[2], *(UPGRADE[3:] if joins(way) == "envoy" else [])])
            stream = client2.send([head[0], (":protocol", "websocket"), *head[1:]], end=False)
            opened = client2.until(stream, lambda message: message.pseudo)
            if (way.link, way.app_name, str(way.mesh.seats)) == ("h1", "two", "pillion-envoy"):
                assert opened.status == 502  # its 101 has no Sec-WebSocket-Accept (RFC 6455 §4.1)
                return
            assert opened.status == 200
            for part in (b"hello", b"again" * 2000):
                before = len(opened.body)
                client2.data(stream, part)
                client2.until(stream, holds(before + len(part)))
                assert opened.body[before:] == part
            client2.cancel(stream)
    seen = way.app.last("/chat")
    assert seen.get("sec-websocket-version") == "13"
    if way.app_name == "two":
        assert (seen.pseudo[":method"], seen.pseudo[":protocol"]) == ("CONNECT", "websocket")
        assert not HOP_BY_HOP & {name for name, _ in seen.headers}


def holds(size: int) -> Callable[[Message], Any]:
    return lambda message: len(message.body) >= size
