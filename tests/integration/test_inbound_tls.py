"""Who is turned away at the inbound listener: each with its own counter and a log line."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pillion.demo.mesh import Sidecar
from tests.support import echo as echo_upstream
from tests.support.certificates import Authority, Leaf, client_context
from tests.support.echo import Echo
from tests.support.harness import Harness, metric
from tests.support.wait import wait_until

WEB = "spiffe://pillion.local/service/web"
REQUEST = b"GET /secret HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True)
class Target:
    sidecar: Sidecar
    app: Echo
    ca: Authority


@pytest.fixture(scope="module")
def target(bare_mesh: Harness) -> Iterator[Target]:
    bare_mesh.apply("kind: Service\nname: echo\n")
    with echo_upstream.in_thread() as app:
        data = bare_mesh.control_plane.data
        ca = Authority(certificate_pem=(data / "ca.pem").read_text(), key_pem=(data / "ca.key").read_text())
        yield Target(bare_mesh.up_sidecar("echo", app.port), app, ca)


def ask(target: Target, leaf: Leaf | None, directory: Path) -> bytes:
    """What the inbound listener answers to a request over TLS; nothing when it turns the client away.

    With TLS 1.3 a client learns only on its first read that its certificate was refused (RFC 8446, 4.4.2.4).
    """
    context = client_context(target.ca.pem, leaf, directory)
    with socket.create_connection(("127.0.0.1", target.sidecar.inbound), timeout=5) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="echo") as secured:
                secured.sendall(REQUEST)
                return read_all(secured)
        except (ssl.SSLError, ConnectionError):
            return b""


def read_all(sock: socket.socket) -> bytes:
    answer = b""
    try:
        while data := sock.recv(65536):
            answer += data
    except (ssl.SSLError, ConnectionError):
        pass
    return answer


def test_a_client_of_the_mesh_is_let_in(target: Target, tmp_path: Path) -> None:
    assert b" 200 " in ask(target, target.ca.issue(WEB), tmp_path)


BAD: dict[str, Callable[[Authority], Leaf | None]] = {
    "unknown_ca": lambda _: Authority("somebody else").issue(WEB),
    "expired": lambda ca: ca.expired(WEB),
    "no_certificate": lambda _: None,
    "bad_san": lambda ca: ca.issue("spiffe://elsewhere.example/service/web"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_certificate_is_refused(target: Target, tmp_path: Path, reason: str) -> None:
    check_refused(target, reason, lambda: ask(target, BAD[reason](target.ca), tmp_path))


def test_plaintext_is_refused(target: Target) -> None:
    def plain() -> bytes:
        with socket.create_connection(("127.0.0.1", target.sidecar.inbound), timeout=5) as sock:
            sock.sendall(REQUEST)
            return read_all(sock)

    check_refused(target, "plaintext", plain)


def test_a_client_that_says_nothing_keeps_nobody_waiting(target: Target, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", target.sidecar.inbound), timeout=5):
        assert b" 200 " in ask(target, target.ca.issue(WEB), tmp_path)


def check_refused(target: Target, reason: str, attempt: Callable[[], bytes]) -> None:
    served = len(target.app.requests)
    before = {name: count(target, name) for name in [*BAD, "plaintext"]}
    log = target.sidecar.process.output()

    answer = attempt()

    assert b" 200 " not in answer
    assert len(target.app.requests) == served, "it reached the app"
    wait_until(lambda: count(target, reason) == before[reason] + 1, 5, f"the counter of {reason}")
    others = {name: count(target, name) for name in before if name != reason}
    assert others == {name: value for name, value in before.items() if name != reason}
    wait_until(lambda: reason in target.sidecar.process.output()[len(log) :], 5, f"a log line with {reason}")
    assert "Z WARN  worker[" in target.sidecar.process.output()[len(log) :]


def count(target: Target, reason: str) -> float:
    return metric(target.sidecar, "downstream_tls_error_total", listener="inbound", reason=reason)
