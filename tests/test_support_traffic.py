"""The helpers that judge the mesh judge rightly: the load's outcomes, the echo, the certificates."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.support import echo as echo_upstream
from tests.support.certificates import Authority, Leaf, client_context
from tests.support.http import request
from tests.support.load import Load, complete
from tests.support.wait import wait_until


@pytest.mark.parametrize(("path", "result"), [("/", "200"), ("/status/503", "503"), ("/close", "reset")])
def test_the_load_tells_outcomes_apart(path: str, result: str) -> None:
    with echo_upstream.in_thread() as app, Load(app.port, "echo", rate=200, path=path) as load:
        wait_until(lambda: load.results().total() >= 5, 5)
    assert set(load.results()) == {result}
    assert len(load.failures()) == (0 if result == "200" else load.results().total())


def test_the_load_sees_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Load(port, "echo", rate=200) as load:
        wait_until(lambda: load.results().total() >= 5, 5)
    assert set(load.results()) == {"refused"}


@pytest.mark.parametrize(
    ("head", "body", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", b"abc", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", b"ab", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"1\r\nx\r\n", False),
        (b"HTTP/1.1 204 No Content", b"", True),
    ],
)
def test_half_an_answer_is_none(head: bytes, body: bytes, whole: bool) -> None:
    assert complete(head, body) is whole


def test_the_echo_remembers_and_reads_bodies() -> None:
    with echo_upstream.in_thread() as app:
        answer = request(app.port, "/a?b", host="me", method="PUT", body=iter([b"x" * 5, b"y"]))  # chunked
        assert answer.json()["body"] == "xxxxxy"
        assert request(app.port, "/bytes/12").body == b"x" * 12
    assert [(r.method, r.path) for r in app.requests] == [("PUT", "/a?b"), ("GET", "/bytes/12")]
    assert app.requests[0].header("host") == "me"
    assert json.loads(answer.body)["name"] == "echo"


@pytest.mark.parametrize("kind", ["good", "expired", "other"])
def test_certificates_are_good_or_bad_as_they_should(tmp_path: Path, kind: str) -> None:
    ca, uri = Authority(), "spiffe://test/service/web"
    leaves = {"good": ca.issue(uri), "expired": ca.expired(uri), "other": Authority().issue(uri)}
    verdict = verify(ca, leaves[kind], tmp_path)
    assert verdict == {"good": uri, "expired": "expired", "other": "unable to get local issuer"}[kind]


def verify(ca: Authority, leaf: Leaf, directory: Path) -> str:
    """What a server that trusts `ca` makes of a client with `leaf`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*ca.issue("spiffe://test/service/server").write(directory, "server"))
    ours, theirs = socket.socketpair()

    def connect() -> None:
        with theirs:
            try:
                with client_context(ca.pem, leaf, directory).wrap_socket(theirs) as secured:
                    secured.recv(1)
            except OSError:
                pass

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        with ours, context.wrap_socket(ours, server_side=True) as secured:
            certificate = secured.getpeercert()
            assert certificate is not None
            return str(dict(certificate["subjectAltName"])["URI"])
    except ssl.SSLCertVerificationError as error:
        return "expired" if "expired" in error.verify_message else error.verify_message[:26]
    finally:
        thread.join(5)
