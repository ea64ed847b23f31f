"""A pair of sidecars under a control plane, as an app and its peer see it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from pillion.demo.mesh import Sidecar
from tests.support import echo as echo_upstream
from tests.support import grpc_app
from tests.support.echo import Echo
from tests.support.grpc_client import Result, Sync
from tests.support.harness import Harness, access_log, endpoints, metric
from tests.support.http import Response, request
from tests.support.wait import wait_until

WEB, ECHO = "spiffe://pillion.local/service/web", "spiffe://pillion.local/service/echo"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass(frozen=True)
class Pair:
    """web → echo; the app behind echo's sidecar is `app`."""

    web: Sidecar
    echo: Sidecar
    app: Echo

    def get(self, path: str = "/", **how: Any) -> Response:
        return request(self.web.outbound, path, **{"host": "echo", **how})


@pytest.fixture(scope="module")
def pair(bare_mesh: Harness) -> Iterator[Pair]:
    bare_mesh.apply("kind: Service\nname: web\n---\nkind: Service\nname: echo\n")
    with echo_upstream.in_thread() as app:
        # Nothing listens on web's app port: web only calls.
        web = bare_mesh.start_sidecar("web", 9)
        echo = bare_mesh.up_sidecar("echo", app.port)
        wait_until(web.ready, 30)
        bare_mesh.wait_for(web, "echo")
        yield Pair(web, echo, app)


def curl(*arguments: str, env: dict[str, str] | None = None) -> Any:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian: apt install curl)")
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10", *arguments]
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    done = subprocess.run(command, capture_output=True, text=True, env={**clean, **(env or {})}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_app_needs_only_the_services_name_as_host(pair: Pair) -> None:
    answer = curl("-H", "Host: echo", f"http://127.0.0.1:{pair.web.outbound}/hello?x=1")
    assert (answer["name"], answer["path"]) == ("echo", "/hello?x=1")


def test_or_an_http_proxy(pair: Pair) -> None:
    answer = curl("http://echo/hello?x=1", env={"http_proxy": f"http://127.0.0.1:{pair.web.outbound}"})
    assert (answer["path"], dict(answer["headers"])["host"]) == ("/hello?x=1", "echo")


def test_the_app_learns_who_called(pair: Pair) -> None:
    headers = dict(pair.get().json()["headers"])
    pattern = rf'By={ECHO};Hash=[0-9a-f]{{64}};Subject="[^"]*";URI={WEB}'
    assert re.fullmatch(pattern, headers["x-forwarded-client-cert"])


def test_a_forged_identity_does_not_get_through(pair: Pair) -> None:
    forged = "By=x;Hash=00;URI=spiffe://pillion.local/service/admin"
    names = [name for name, _ in pair.get(headers={"X-Forwarded-Client-Cert": forged}).json()["headers"]]
    value = dict(pair.get(headers={"X-Forwarded-Client-Cert": forged}).json()["headers"])["x-forwarded-client-cert"]
    assert names.count("x-forwarded-client-cert") == 1
    assert "admin" not in value
    assert value.endswith(f"URI={WEB}")


def test_a_trace_is_continued_on_both_sides(pair: Pair) -> None:
    sent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1,other=2"}

    headers = dict(pair.get("/traced", headers=sent).json()["headers"])

    version, trace, parent, flags = headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert parent != SPAN
    assert headers["tracestate"] == "vendor=1,other=2"
    outbound = log_line(pair.web, "outbound", "/traced")
    inbound = log_line(pair.echo, "inbound", "/traced")
    assert outbound["trace_id"] == inbound["trace_id"] == TRACE
    assert inbound["peer"] == WEB
    assert outbound["cluster"] == "echo"
    assert outbound["upstream_host"] == f"127.0.0.1:{pair.echo.inbound}"
    assert outbound["status"] == inbound["status"] == 200
    assert outbound["request_id"] == inbound["request_id"]


def test_a_trace_is_started_where_there_is_none(pair: Pair) -> None:
    headers = dict(pair.get("/untraced").json()["headers"])
    trace = headers["traceparent"].split("-")[1]
    assert re.fullmatch("[0-9a-f]{32}", trace)
    assert set(trace) != {"0"}
    assert log_line(pair.web, "outbound", "/untraced")["trace_id"] == trace
    assert log_line(pair.echo, "inbound", "/untraced")["trace_id"] == trace


def log_line(sidecar: Sidecar, direction: str, path: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        lines = access_log(sidecar.process)
        return next((x for x in lines if x["direction"] == direction and x["path"] == path), None)

    return wait_until(find, 5, f"the {direction} access log line of {path}")


def test_bodies_go_both_ways_whole(pair: Pair) -> None:
    body = os.urandom(3 * 1024 * 1024)

    answer = pair.get("/upload", method="POST", body=body)

    assert answer.status == 200
    assert pair.app.requests[-1].body == body
    assert len(pair.get("/bytes/5000000").body) == 5_000_000


def test_a_chunked_body_arrives(pair: Pair) -> None:
    chunks = iter([b"one", b"two", b"x" * 70_000])
    answer = pair.get("/chunked", method="POST", body=chunks)
    assert answer.status == 200
    assert pair.app.requests[-1].body == b"onetwo" + b"x" * 70_000


def test_connections_are_reused(pair: Pair) -> None:
    def opened() -> tuple[float, float]:
        outer = metric(pair.web, "upstream_cx_total", cluster="echo")
        return outer, metric(pair.echo, "upstream_cx_total", cluster="inbound")

    pair.get()
    before = opened()
    for _ in range(20):
        assert pair.get().status == 200
    assert opened() == before


def test_a_name_that_is_no_service_is_404(pair: Pair) -> None:
    answer = pair.get(host="nobody")
    assert answer.status == 404
    assert metric(pair.web, "response_flags_total", listener="outbound", flag="NR") >= 1


def test_the_apps_own_errors_pass_through(pair: Pair) -> None:
    assert pair.get("/status/503").status == 503
    assert pair.get("/status/418").status == 418


@pytest.fixture(scope="module")
def calls(pair: Pair, bare_mesh: Harness) -> Sidecar:
    """web → calls, a gRPC app: first taken for an HTTP/1.1 one, as long as nothing says what it speaks."""
    bare_mesh.apply("kind: Service\nname: calls\n")
    app = grpc_app.start(bare_mesh, "calls app")[1]
    sidecar = bare_mesh.up_sidecar("calls", app)
    wait_until(lambda: endpoints(pair.web, "calls"), 30, "web knows it")
    assert unary(pair.web).code is not grpc.StatusCode.OK
    bare_mesh.apply("kind: Service\nname: calls\nprotocol: grpc\n")
    wait_until(lambda: unary(pair.web).code is grpc.StatusCode.OK, 30, "calls go through")
    return sidecar


def unary(web: Sidecar) -> Result:
    return Sync(web.outbound, "calls").call("unary_unary", "Unary", b"hello", timeout=5)


def test_a_grpc_service_is_called_by_its_name(pair: Pair, calls: Sidecar) -> None:
    client = Sync(pair.web.outbound, "calls")
    result = client.call("stream_stream", "Chat", b"a", b"b", b"c")
    assert (result.code, result.messages) == (grpc.StatusCode.OK, [b"a", b"b", b"c"])
    line = log_line(calls, "inbound", "/test.Calls/Chat")
    assert (line["peer"], line["cluster"]) == (WEB, "inbound")
    verified = metric(
        pair.web, "upstream_tls_handshake_total", cluster="calls", peer="spiffe://pillion.local/service/calls"
    )
    assert verified == metric(pair.web, "upstream_cx_total", cluster="calls") > 0


def test_grpc_calls_share_connections(pair: Pair, calls: Sidecar) -> None:
    def opened() -> tuple[float, float]:
        outer = metric(pair.web, "upstream_cx_total", cluster="calls")
        return outer, metric(calls, "upstream_cx_total", cluster="inbound")

    unary(pair.web)
    before = opened()
    for _ in range(5):  # each on a connection of its own to web's sidecar
        assert unary(pair.web).code is grpc.StatusCode.OK
    assert opened() == before


def test_an_app_may_speak_http2_to_an_http1_service(pair: Pair) -> None:
    answer = curl("--http2-prior-knowledge", "-H", "Host: echo", f"http://127.0.0.1:{pair.web.outbound}/by-http2")
    assert (answer["name"], answer["path"]) == ("echo", "/by-http2")
    assert re.search(f"URI={WEB}$", dict(answer["headers"])["x-forwarded-client-cert"])


def test_status_and_get_tell_what_a_service_speaks(bare_mesh: Harness, calls: Sidecar) -> None:
    assert {it.service: it.protocol for it in bare_mesh.status().proxies} == {
        "web": "http", "echo": "http", "calls": "grpc",
    }  # fmt: skip
    assert {it.name: it.protocol for it in bare_mesh.get().services} == {"web": "http", "echo": "http", "calls": "grpc"}


def test_the_metrics_show_a_verified_handshake(pair: Pair) -> None:
    handshakes = metric(pair.web, "upstream_tls_handshake_total", cluster="echo")
    assert handshakes == metric(pair.web, "upstream_tls_handshake_total", cluster="echo", peer=ECHO) > 0
    assert handshakes == metric(pair.web, "upstream_cx_total", cluster="echo")
    assert metric(pair.echo, "downstream_tls_handshake_total", listener="inbound") >= 1
    assert metric(pair.web, "control_plane_connected_state") == 1


def test_admin_answers_as_envoys_does(pair: Pair) -> None:
    for path in ("/ready", "/healthz", "/clusters", "/certs", "/metrics", "/stats/prometheus"):
        assert request(pair.web.admin, path).status == 200, path
    dump = request(pair.web.admin, "/config_dump")
    assert "spiffe://pillion.local/service/echo" in dump.body.decode()
    assert b"PRIVATE KEY" not in dump.body


def test_no_secret_is_in_a_log(pair: Pair, bare_mesh: Harness) -> None:
    operator = bare_mesh.control_plane.token_file.read_text().split()[1]
    tokens = [path.read_text().split()[1] for path in bare_mesh.directory.glob("*.token")]
    assert tokens
    for process in bare_mesh.tree.processes:
        text = process.output()
        assert "PRIVATE KEY" not in text
        assert not any(token in text for token in [operator, *tokens])
