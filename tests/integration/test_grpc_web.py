"""gRPC-Web and CORS as a browser meets them: over HTTP/1.1 and HTTP/2, binary and base64, in front of a real grpcio
server. The same bootstrap runs in the real Envoy, of which the same is expected."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pillion.demo.processes import Process, free_ports
from tests.support import grpc_app, grpc_h1, grpc_mesh, grpc_wire
from tests.support.bootstrap import TYPES
from tests.support.envoy import MISSING
from tests.support.grpc_app import path
from tests.support.grpc_web import Web
from tests.support.grpc_wire import App, Message, Reply, frame
from tests.support.harness import access_log, harness
from tests.support.wait import wait_until

ORIGIN = "https://ok.test"
POLICY = {
    "@type": TYPES + "filters.http.cors.v3.CorsPolicy",
    "allow_origin_string_match": [{"exact": ORIGIN}],
    "allow_methods": "POST",
    "allow_headers": "content-type,x-grpc-web",
    "expose_headers": "grpc-status,grpc-message",
    "max_age": "600",
}
OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
FILTERS = [
    {"name": "envoy.filters.http.cors", "typed_config": {"@type": TYPES + "filters.http.cors.v3.Cors"}},
    {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": TYPES + "filters.http.grpc_web.v3.GrpcWeb"}},
    {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPES + "filters.http.router.v3.Router"}},
]
GRPC = ("content-type", "application/grpc")
LONG = "x" * 20_000


def odd(request: Message) -> Reply:
    """An app that answers as its path says."""
    what = request.pseudo[":path"].removeprefix("/")
    if what.startswith("late-error"):
        return Reply(200, [GRPC], frame(b"one"), [("grpc-status", "9"), ("grpc-message", "not%20now"), ("x-t", "a: b")])
    if what == "json":
        return Reply(200, [("content-type", "application/grpc+proto")], frame(b"{}"), [("grpc-status", "0")])
    if what == "no-trailers":
        return Reply(200, [GRPC], frame(b"one"), length=False)
    if what == "only-head":
        return Reply(200, [GRPC, ("grpc-status", "5"), ("grpc-message", "no such")], length=False)
    if what == "web":
        return Reply(
            200, [("content-type", "application/grpc-web+proto")], frame(b"one") + b"\x80\0\0\0\x0fgrpc-status:0\r\n"
        )
    if what == "cut":
        return Reply(500, [("content-type", "text/plain")], b"half a page", length=False, cut=True)
    if what.startswith(("echo", "refuse")):
        return Reply(200, [GRPC], bytes(request.body), [("grpc-status", "0")], length=False)
    status, _, text = what.partition("/")
    return Reply(
        int(status),
        [("content-type", "text/plain"), ("x-page", "1")],
        LONG.encode() if text == "long" else text.encode(),
    )


@dataclass(frozen=True)
class Sidecar:
    seat: str
    process: Process
    port: int
    apps: dict[str, App]


@pytest.fixture(
    scope="module",
    params=[
        "pillion",
        pytest.param("envoy", marks=[pytest.mark.envoy, pytest.mark.skipif(MISSING, reason="Envoy is not installed")]),
    ],
)
def sidecar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with (
        harness(tmp_path_factory.mktemp("web")) as work,
        grpc_wire.h2_app(odd) as two,
        grpc_h1.h1_app(odd) as one,
    ):
        calls = grpc_app.start(work, "calls")[1]
        dead, port = free_ports(2)
        hosts = []
        for name in ("calls", "two", "one", "dead"):
            found = grpc_mesh.host(name, name, name)
            found["typed_per_filter_config"] = {"envoy.filters.http.cors": POLICY}
            hosts.append(found)
        off = grpc_mesh.host("off", "two", "off")
        off["routes"][0]["typed_per_filter_config"] = {"envoy.filters.http.grpc_web": OFF}
        direct = {"match": {"prefix": "/"}, "direct_response": {"status": 403, "body": {"inline_string": "keep out"}}}
        again = grpc_mesh.host("again", "two", "again", retry_policy={"retry_on": "reset"})
        hosts += [off, again, {"name": "direct", "domains": ["direct"], "routes": [direct]}]
        clusters = [
            grpc_mesh.cluster("calls", calls),
            grpc_mesh.cluster("two", two.port),
            grpc_mesh.cluster("one", one.port, http2=False),
            grpc_mesh.cluster("dead", dead),
        ]
        listener = grpc_mesh.listener(
            "web", port, hosts, http_filters=FILTERS, upgrade_configs=[{"upgrade_type": "websocket"}]
        )
        running = grpc_mesh.start(work, request.param, request.param, [listener], clusters)
        yield Sidecar(request.param, running.process, port, {"two": two, "one": one})


@pytest.fixture(
    params=[(False, False), (False, True), (True, False), (True, True)], ids=["h1", "h1-text", "h2", "h2-text"]
)
def web(request: pytest.FixtureRequest, sidecar: Sidecar) -> Web:
    return Web(sidecar.port, *request.param)


def cors(message: Message) -> dict[str, str]:
    """What a response tells a browser about origins."""
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in message.headers if name.startswith(prefix)}


READABLE = {"allow-origin": ORIGIN, "expose-headers": "grpc-status,grpc-message"}


def test_unary(web: Web) -> None:
    answer = web.call("calls", path("Unary"), b"hello", metadata=[("my-text", "plain"), ("my-bytes-bin", "AAE=")])
    assert (answer.messages, answer.code, answer.http.status) == ([b"hello"], 0, 200)
    kind = "application/grpc-web-text+proto" if web.text else "application/grpc-web+proto"
    assert answer.http.all("content-type") == [kind]
    assert cors(answer.http) == READABLE
    assert answer.http.get("content-length") is None
    assert answer.http.get("my-text") == "plain"
    assert answer.trailers is not None
    assert ("t-my-text", "plain") in answer.trailers
    assert dict(answer.trailers)["t-my-bytes-bin"].rstrip("=") == "AAE"


def test_sizes(sidecar: Sidecar, web: Web) -> None:
    # Beyond a window Envoy resets streams of HTTP/2 now and then (INTERNAL_ERROR), with and without filters.
    large = (40_000,) if sidecar.seat == "envoy" else (40_000, 300_000)
    for size in (0, 1, 2, 3, *large):
        assert web.call("calls", path("Unary"), b"s" * size).messages == [b"s" * size]


def test_server_streaming(web: Web) -> None:
    answer = web.call("calls", path("Split"), b"40 1000")
    assert answer.messages == [bytes([number]) * 1000 for number in range(40)]
    assert answer.code == 0
    empty = web.call("calls", path("Split"), b"0 0")
    assert (empty.messages, empty.code) == ([], 0)


def test_messages_pass_as_they_come(web: Web) -> None:
    """Of a stream that never ends, what has come can be read."""
    headers = [*web.headers, ("te", "trailers")] if web.http2 else web.headers
    key = b"flood %d %d" % (web.http2, web.text)
    body = base64.b64encode(frame(key)) if web.text else frame(key)
    wanted = 4 * len(grpc_app.BLOCK)
    if web.http2:
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "calls"), (":path", path("Flood"))]
        with grpc_wire.Client(web.port) as client:
            stream = client.send([*pseudo, *headers], body)
            client.until(stream, lambda message: len(message.body) > wanted)
            client.cancel(stream)
        return
    with grpc_h1.Client(web.port) as client1:
        client1.head("POST", "calls", path("Flood"), headers, body)
        client1.sock.sendall(body)
        line, _ = grpc_h1.read_head(client1.file)
        assert line.startswith("HTTP/1.1 200")
        assert len(client1.file.read(wanted)) == wanted


@pytest.mark.parametrize("code", [1, 3, 5, 16])
def test_a_call_that_fails(web: Web, code: int) -> None:
    answer = web.call("calls", path("Fail"), "because ä".encode(), metadata=[("x-code", str(code))])
    assert (answer.http.status, answer.messages, answer.code) == (200, [], code)
    assert answer.text == "because %C3%A4"
    assert cors(answer.http) == READABLE
    assert web.call("calls", path("Missing"), b"").code == 12


@pytest.mark.parametrize("app", ["two", "one"])
def test_an_app_fails_behind_messages(sidecar: Sidecar, web: Web, app: str) -> None:
    answer = web.call(app, "/late-error", b"x")
    assert (answer.messages, answer.code, answer.text) == ([b"one"], 9, "not%20now")
    assert answer.trailers == [("grpc-status", "9"), ("grpc-message", "not%20now"), ("x-t", "a: b")]
    seen = sidecar.apps[app].last("/late-error")
    assert (bytes(seen.body), seen.trailers) == (frame(b"x"), None)
    assert (seen.get("content-type"), seen.get("te"), seen.get("content-length")) == (
        "application/grpc",
        "trailers",
        None,
    )
    assert seen.get("grpc-accept-encoding") == "identity"
    assert (seen.get("origin"), seen.get("x-grpc-web")) == (ORIGIN, "1")


def test_answers_that_end_otherwise(sidecar: Sidecar, web: Web) -> None:
    bare = web.call("two", "/no-trailers", b"")
    assert (bare.messages, bare.trailers) == ([b"one"], None)
    head = web.call("two", "/only-head", b"")
    assert (head.messages, head.trailers, head.code, head.text) == ([], None, 5, "no such")
    if sidecar.seat != "envoy" or not web.text:  # of which it encodes only a part
        done = web.call("two", "/web", b"")
        assert (done.messages, done.trailers) == ([b"one"], [("grpc-status", "0")])


STATUSES = {200: 2, 400: 13, 401: 16, 403: 7, 404: 12, 409: 2, 429: 14, 500: 2, 502: 14, 503: 14, 504: 14}


def test_a_page_becomes_a_status(web: Web) -> None:
    """What is no gRPC at all: the status of HTTP says which one of gRPC, the page is its text."""
    for status, code in STATUSES.items():
        answer = web.call("two", f"/{status}/no%20such<page>", b"x")
        assert (answer.http.status, answer.messages, answer.trailers) == (status, [], None)
        assert (answer.code, answer.text) == (code, "no%2520such<page>")
        assert (answer.http.get("x-page"), cors(answer.http)) == ("1", READABLE)
        assert (answer.http.get("content-length") or "0") == "0"
    assert web.call("one", "/500/long", b"x").text == LONG[: 16 * 1024]


def test_the_sidecar_answers_itself(sidecar: Sidecar, web: Web) -> None:
    answer = web.call("dead", "/any", b"x")
    # A browser's client reads the message of a 200 only; Envoy's is of the HTTP status.
    assert answer.http.status == (503 if sidecar.seat == "envoy" else 200)
    assert (answer.code, answer.messages) == (14, [])
    assert "connect" in answer.text
    assert cors(answer.http) == READABLE
    direct = web.call("direct", "/any", b"x")
    assert direct.http.status == (403 if sidecar.seat == "envoy" else 200)
    assert (direct.code, direct.text) == (7, "keep out")
    lost = web.call("nowhere", "/any", b"x")
    assert lost.http.status == (404 if sidecar.seat == "envoy" else 200)
    assert lost.code == (-1 if sidecar.seat == "envoy" else 12)  # it has no text for this, and then says no status


@pytest.mark.parametrize("body", [b"AAAA*AAA", b"AAAAA", b"AAAA====", b"AAB="])
def test_what_is_no_base64_is_refused(sidecar: Sidecar, body: bytes) -> None:
    for http2 in (False, True):
        web = Web(sidecar.port, http2, text=True)
        for parts in (body, [body[:2], body[2:]]):
            answer = web.read(web.ask("POST", "two", "/refused", web.headers, parts))
            assert (answer.http.status, answer.code) == (400, 13)
            assert cors(answer.http) == READABLE
    assert sidecar.apps["two"].count("/refused") == 0


def test_a_text_body_comes_in_any_pieces(sidecar: Sidecar) -> None:
    body = base64.b64encode(frame(b"pieces"))
    for http2 in (False, True):
        web = Web(sidecar.port, http2, text=True)
        for size in (1, 3, 5):
            parts = [body[at : at + size] for at in range(0, len(body), size)]
            answer = web.read(web.ask("POST", "calls", path("Unary"), web.headers, parts))
            assert (answer.messages, answer.code) == ([b"pieces"], 0)


def test_a_text_body_may_be_padded_within(sidecar: Sidecar) -> None:
    if sidecar.seat == "envoy":
        pytest.skip("takes it or not, by how it arrives")
    body = b"".join([base64.b64encode(part) for part in (frame(b"padded")[:4], frame(b"padded")[4:])])
    assert b"=" in body[:-4]
    web = Web(sidecar.port, False, text=True)
    assert web.read(web.ask("POST", "calls", path("Unary"), web.headers, body)).messages == [b"padded"]


def test_preflight(web: Web) -> None:
    asked = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-grpc-web"),
    ]
    answer = web.ask("OPTIONS", "two", "/preflight", asked, None)
    assert (answer.status, bytes(answer.body)) == (200, b"")
    allowed = {"allow-methods": "POST", "allow-headers": "content-type,x-grpc-web", "max-age": "600"}
    assert cors(answer) == {**READABLE, **allowed}
    # Not answered here, but by the app, which knows nothing of origins.
    other = [("origin", "https://other.test"), *asked[1:]]
    assert cors(web.ask("OPTIONS", "two", "/404/preflight", other, None)) == {}


def test_another_origin_is_told_nothing(sidecar: Sidecar, web: Web) -> None:
    answer = replace(web, origin="https://other.test").call("two", "/late-error", b"x")
    assert (answer.code, cors(answer.http)) == (9, {})


def test_other_requests_are_as_they_were(sidecar: Sidecar) -> None:
    for http2 in (False, True):
        web = Web(sidecar.port, http2, text=False)
        for host, kind in (("two", "application/grpc"), ("two", "text/plain"), ("off", "application/grpc-web+proto")):
            answer = web.ask("POST", host, "/echo", [("content-type", kind)], b"as it is")
            assert (answer.get("content-type"), bytes(answer.body)) == ("application/grpc", b"as it is")
            seen = sidecar.apps["two"].last("/echo")
            assert (seen.get("content-type"), seen.get("content-length")) == (kind, "8")


@pytest.mark.parametrize("app", ["two", "one"])
def test_a_page_that_breaks_off(sidecar: Sidecar, web: Web, app: str) -> None:
    """It was held back, so there is still a way to say so."""
    if sidecar.seat == "envoy":
        pytest.skip("breaks off as well")
    answer = web.call(app, "/cut", b"x")
    assert (answer.code, cors(answer.http)) == (14, READABLE)


def test_what_was_decoded_is_sent_again(sidecar: Sidecar, web: Web) -> None:
    """The stream is refused (RFC 9113 §8.7) once."""
    path = f"/refuse//{web.http2}{web.text}"
    assert web.call("again", path, b"again").messages == [b"again"]
    assert [bytes(seen.body) for seen in sidecar.apps["two"].seen if seen.pseudo[":path"] == path] == 2 * [
        frame(b"again")
    ]


def test_a_web_socket_of_another_origin(sidecar: Sidecar) -> None:
    """CORS looks at its opening, and lets all of it pass."""
    fields = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", ORIGIN),
    ]
    with grpc_h1.Client(sidecar.port) as client:
        client.head("GET", "one", "/chat", fields, None)
        answer = client.answer("GET")
        assert (answer.status, cors(answer)) == (101, READABLE)
        for part in (b"hello", b"again" * 20_000):
            client.sock.sendall(part)
            assert client.file.read(len(part)) == part
    assert sidecar.apps["one"].last("/chat").get("origin") == ORIGIN


def test_the_access_log_tells_what_the_client_saw(sidecar: Sidecar, web: Web) -> None:
    path = f"/late-error/{web.http2}/{web.text}"
    assert web.call("two", path, b"x").code == 9

    def line() -> Any:
        return next((line for line in access_log(sidecar.process) if line["path"] == path), None)

    found = wait_until(line, 10, "its line in the access log")
    sizes = (8, 84) if web.text else (6, 62)
    assert (found["received"], found["sent"], found["status"], found["flags"]) == (*sizes, 200, "-")


def test_a_client_that_leaves(sidecar: Sidecar) -> None:
    """Connections and calls that end early leave nothing that would hinder the next ones."""
    web = Web(sidecar.port, False, text=True)
    for cut in (0, 1, 7):
        with grpc_h1.Client(sidecar.port) as client, contextlib.suppress(OSError):
            client.head("POST", "calls", path("Unary"), web.headers, b"x" * 8)
            client.sock.sendall(b"AAAAAAAA"[:cut])
    assert web.call("calls", path("Unary"), b"after").messages == [b"after"]
