"""Answers that a sidecar makes by itself, to gRPC calls: always HTTP 200 with grpc-status and grpc-message in the one
HEADERS frame of a trailers-only answer (gRPC over HTTP/2, "Responses"). And how calls are counted.

Envoy does the same but for two: it has no text where no route matches, and says UNAVAILABLE after the route's timeout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import pytest

from pillion.demo.processes import free_ports
from tests.support import grpc_app, grpc_client, grpc_mesh, grpc_wire
from tests.support.bootstrap import address
from tests.support.grpc_app import path
from tests.support.grpc_client import Sync
from tests.support.grpc_wire import App, Message, Reply, frame, grpc_request
from tests.support.harness import access_log, harness, metric
from tests.support.sidecars import Pair
from tests.support.wait import wait_until

STATUSES = {
    200: grpc.StatusCode.UNKNOWN,
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    418: grpc.StatusCode.UNKNOWN,
    429: grpc.StatusCode.UNAVAILABLE,
    500: grpc.StatusCode.UNKNOWN,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
"""gRPC's "HTTP to gRPC Status Code Mapping", which is for clients."""


def answer(request: Message) -> Reply:
    """/status/N: that status, from somebody who does not know gRPC. All else: a call that succeeds."""
    _, what, *rest = request.pseudo[":path"].split("/")
    if what == "status":
        return Reply(int(rest[0]), [("content-type", "text/html")], b"<html>sorry</html>")
    trailers = [("grpc-status", "0")]
    return Reply(200, [("content-type", "application/grpc")], frame(b"done"), trailers, length=False)


@dataclass(frozen=True)
class Mesh:
    pair: Pair
    seats: grpc_mesh.Seats
    wire: App

    def flags(self, authority: str) -> str:
        """Of the last record for an authority in the first sidecar's access log."""
        records = wait_until(
            lambda: [r for r in access_log(self.pair.front.process) if r["authority"] == authority], 10
        )
        found: str = records[-1]["flags"]
        return found


def extras(dead: int, app: int) -> dict[str, Any]:
    """What fails at the first sidecar, each under an authority of its own."""
    unhealthy = grpc_mesh.cluster("unhealthy", common_lb_config={"healthy_panic_threshold": {"value": 0}})
    endpoint = {"endpoint": {"address": address(app)}, "health_status": "UNHEALTHY"}
    unhealthy["load_assignment"]["endpoints"] = [{"lb_endpoints": [endpoint]}]
    limits = {"thresholds": [{"max_requests": 1, "max_retries": 0}]}
    denied = grpc_mesh.host("denied", "dead", "denied")
    del denied["routes"][0]["route"]
    denied["routes"][0]["direct_response"] = {"status": 403, "body": {"inline_string": "not for you"}}
    return {
        "front_hosts": [
            denied,
            grpc_mesh.host("dead", "dead", "dead"),
            grpc_mesh.host("unhealthy", "unhealthy", "unhealthy"),
            grpc_mesh.host("limited", "limited", "limited"),
            grpc_mesh.host("slow", "h2", "slow.*", timeout="0.3s"),
        ],
        "front_clusters": [
            grpc_mesh.cluster("dead", dead),
            unhealthy,
            grpc_mesh.cluster("limited", app, circuit_breakers=limits),
        ],
        "back_hosts": [grpc_mesh.host("gone", "gone", "*.gone")],
        "back_clusters": [grpc_mesh.cluster("gone", dead)],
    }


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    seats = grpc_mesh.only_pillion()
    with harness(tmp_path_factory.mktemp("replies")) as work, grpc_wire.h2_app(answer) as wire:
        apps = {"aio": grpc_app.start(work, "aio")[1], "wire": wire.port}
        (dead,) = free_ports(1)
        yield Mesh(grpc_mesh.start_pair(work, seats, apps, **extras(dead, wire.port)), seats, wire)


def check(message: Message, status: int) -> str:
    """That it is trailers-only with this status; its text."""
    assert (message.status, message.get("grpc-status"), bytes(message.body)) == (200, str(status), b"")
    assert message.headers_only
    assert (message.get("content-type") or "").startswith("application/grpc")
    text = message.get("grpc-message")
    assert text
    assert all(" " <= char <= "~" for char in text)
    return unquote(text)


CASES = {
    "nowhere": (12, "NR"),
    "dead": (14, "UF"),
    "unhealthy": (14, "UH"),
    "slow.wire": (4, "UT"),
    "denied": (7, "-"),
    "h2.gone": (14, "-"),  # it is the second sidecar that fails, and says so
}


@pytest.mark.parametrize("authority", CASES)
def test_a_local_reply_is_trailers_only(mesh: Mesh, authority: str) -> None:
    status, flags = CASES[authority]
    with grpc_wire.Client(mesh.pair.front.listen) as client:
        text = check(client.ask(grpc_request(authority, "/silent/call"), frame(b"hello")), status)
    if authority == "denied":
        assert "not for you" in text
    if authority != "h2.gone" or mesh.seats.front == "envoy":
        assert mesh.flags(authority) == flags


@pytest.mark.parametrize("authority", CASES)
def test_grpcio_reports_it(mesh: Mesh, authority: str) -> None:
    with grpc_client.channel(mesh.pair.front.listen, authority) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/silent/call")(b"hello", timeout=10)
        assert refused.value.code().value[0] == CASES[authority][0]
        assert refused.value.details()


def test_over_the_limit(mesh: Mesh) -> None:
    """One call is under way, so there is no room for another; when it is gone, there is."""
    head = grpc_request("limited", "/silent/call")
    with grpc_wire.Client(mesh.pair.front.listen) as client:
        before = mesh.wire.count("/silent/call")
        first = client.send(head, frame(b"1"))
        wait_until(lambda: mesh.wire.count("/silent/call") > before, 10)
        check(client.ask(head, frame(b"2")), 14)
        assert mesh.flags("limited") == "UO"
        client.cancel(first)
        again = grpc_request("limited", "/test/Call")
        wait_until(lambda: client.ask(again, frame(b"3")).trailers == [("grpc-status", "0")], 10)


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto"])
def test_what_counts_as_grpc(mesh: Mesh, kind: str) -> None:
    head = [(name, kind if name == "content-type" else value) for name, value in grpc_request("nowhere", "/a/b")]
    with grpc_wire.Client(mesh.pair.front.listen) as client:
        answer = client.ask(head, frame(b""))
    assert (answer.status, answer.get("grpc-status")) == (200, "12")


@pytest.mark.parametrize("kind", ["application/json", "application/grpc-web", "application/grpcx"])
def test_what_does_not(mesh: Mesh, kind: str) -> None:
    head = [(name, kind if name == "content-type" else value) for name, value in grpc_request("nowhere", "/a/b")]
    with grpc_wire.Client(mesh.pair.front.listen) as client:
        answer = client.ask(head, b"hello")
    assert (answer.status, answer.get("grpc-status")) == (404, None)


@pytest.mark.parametrize("status", STATUSES)
def test_an_answer_that_is_not_grpc_is_the_clients_to_judge(mesh: Mesh, status: int) -> None:
    with grpc_client.channel(mesh.pair.front.listen, "h2.wire") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/status/{status}")(b"hello", timeout=10)
        assert refused.value.code() is STATUSES[status]


# ---- metrics


def counted(mesh: Mesh, status: int, cluster: str = "h2") -> float:
    return metric(mesh.pair.front.admin, "upstream_rq_grpc_total", cluster=cluster, grpc_status=str(status))


def test_calls_are_counted_by_grpc_status(mesh: Mesh) -> None:
    """From trailers, from trailers-only answers and from local replies; what is no gRPC is not among them."""
    if mesh.seats.front == "envoy":
        pytest.skip("our own metrics")
    client = Sync(mesh.pair.front.listen, "h2.aio")
    before = {status: counted(mesh, status) for status in range(17)}

    for _ in range(3):
        assert client.call("unary_unary", "Unary", b"x").code is grpc.StatusCode.OK
    assert client.call("stream_stream", "Chat", b"1", b"2").code is grpc.StatusCode.OK
    for code in (5, 5, 9):
        client.call("unary_unary", "Fail", b"why", metadata=[("x-code", str(code))])
    with grpc_wire.Client(mesh.pair.front.listen) as wire:
        check(wire.ask(grpc_request("slow.wire", "/silent/call"), frame(b"")), 4)
        check(wire.ask(grpc_request("h2.gone", path("Unary")), frame(b"")), 14)
        plain = [(":method", "GET"), (":scheme", "http"), (":authority", "h2.wire"), (":path", "/status/200")]
        assert wire.ask(plain).status == 200

    after = {status: counted(mesh, status) for status in range(17)}
    grown = {status: after[status] - before[status] for status in after if after[status] != before[status]}
    assert grown == {0: 4, 4: 1, 5: 2, 9: 1, 14: 1}
    unreached = counted(mesh, 14, "dead")
    assert unreached == metric(mesh.pair.front.admin, "upstream_rq_grpc_total", cluster="dead")
    assert unreached >= 1
