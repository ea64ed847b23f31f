"""TCP through a mesh: a client that cannot say where it wants to go reaches a service on its local port, by mTLS."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pillion.demo.mesh import Sidecar
from pillion.demo.processes import free_ports
from tests.support import echo as echo_upstream
from tests.support.harness import READY, Harness, access_log, endpoints, kill, metric
from tests.support.http import request
from tests.support.tcp import END, app_in_thread, resident
from tests.support.wait import wait_until

WEB = "spiffe://pillion.local/service/web"
SIZE = 200 * 1000 * 1000


@dataclass(frozen=True)
class Mesh:
    """web → db (tcp), web → page (http); `db_port` and `page_port` are their local ports in web's sidecar."""

    work: Harness
    web: Sidecar
    db: Sidecar
    db_port: int
    page_port: int


def services(db_port: int, page_port: int) -> str:
    return (
        f"kind: Service\nname: web\n---\nkind: Service\nname: db\nprotocol: tcp\nlocalPort: {db_port}\n"
        f"---\nkind: Service\nname: page\nlocalPort: {page_port}\n---\nkind: Service\nname: other\n"
    )


@pytest.fixture(scope="module")
def mesh(bare_mesh: Harness) -> Iterator[Mesh]:
    db_port, page_port = free_ports(2)
    bare_mesh.apply(services(db_port, page_port))
    with app_in_thread() as app, echo_upstream.in_thread("page") as page:
        # Nothing listens on web's app port: web only calls.
        web = bare_mesh.start_sidecar("web", 9)
        wait_until(web.ready, READY)
        # db's and page's sidecars are on the same machine, where web's has the local ports: their own are refused.
        db = bare_mesh.up_sidecar("db", app)
        bare_mesh.up_sidecar("page", page.port)
        for cluster in ("db", "page"):
            bare_mesh.wait_for_endpoints(web, cluster, 1)
        yield Mesh(bare_mesh, web, db, db_port, page_port)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def rest(sock: socket.socket) -> bytes:
    """All that comes."""
    received = b""
    while data := sock.recv(1 << 18):
        received += data
    return received


def test_a_line_protocol(mesh: Mesh) -> None:
    with connect(mesh.db_port) as sock:
        for i in range(50):
            line = b"SELECT %d;\n" % i
            sock.sendall(line)
            received = b""
            while len(received) < len(line):
                received += sock.recv(100)
            assert received == line


def test_a_half_closing_client_and_what_is_logged_of_it(mesh: Mesh) -> None:
    data = bytes(range(256)) * 10
    with connect(mesh.db_port) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == data + END

    def lines(sidecar: Sidecar, direction: str) -> list[dict[str, object]]:
        return [
            it for it in access_log(sidecar.process) if it["direction"] == direction and it["bytes_received"] == 2560
        ]

    (out,) = wait_until(lambda: lines(mesh.web, "outbound"), 5, "the caller's record")
    (into,) = wait_until(lambda: lines(mesh.db, "inbound"), 5, "the callee's record")
    assert (out["cluster"], out["upstream_host"], out["bytes_sent"]) == ("db", f"127.0.0.1:{mesh.db.inbound}", 2563)
    assert (into["peer"], into["bytes_sent"], into["flags"], into["attempts"]) == (WEB, 2563, "-", 1)
    assert metric(mesh.db, "downstream_tls_handshake_total", listener="inbound") > 0
    assert metric(mesh.web, "upstream_tls_handshake_total", peer="spiffe://pillion.local/service/db") > 0


def test_the_inbound_port_is_for_the_mesh_only(mesh: Mesh) -> None:
    with connect(mesh.db.inbound) as sock:
        sock.sendall(b"SELECT 1;\n")
        with contextlib.suppress(ConnectionResetError):
            assert len(rest(sock)) < 10  # an alert
    assert metric(mesh.db, "downstream_tls_error_total", reason="plaintext") > 0


def test_bulk_both_ways_with_slow_readers_takes_no_memory(mesh: Mesh) -> None:
    """200 MB there and back; the client stops reading for a while, so all of the way has to wait."""
    workers = [mesh.web.workers()[0], mesh.db.workers()[0]]
    with connect(mesh.db_port) as sock:  # what the first connection costs is not what grows
        sock.sendall(b"x" * 1_000_000)
        sock.shutdown(socket.SHUT_WR)
        rest(sock)
    before = [resident(pid) for pid in workers]
    highest = [0, 0]
    with connect(mesh.db_port) as sock:

        def send() -> None:
            block = bytes(1 << 20)
            sent = 0
            while sent < SIZE:
                sent += sock.send(block[: SIZE - sent])
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received, looked = 0, 0.0
        while data := sock.recv(1 << 16):
            received += len(data)
            if received % (40 << 20) < len(data):
                time.sleep(0.3)  # slow: everything fills up
            if time.monotonic() - looked > 0.05:
                looked = time.monotonic()
                highest = [max(old, resident(pid)) for old, pid in zip(highest, workers, strict=True)]
        sender.join()
    assert received == SIZE + len(END)
    grown = [(high - low) / 2**20 for high, low in zip(highest, before, strict=True)]
    assert max(grown) < 8, grown


def test_an_http_service_by_its_port(mesh: Mesh) -> None:
    answer = request(mesh.page_port, "/x", host=f"127.0.0.1:{mesh.page_port}")
    assert answer.json()["name"] == "page"
    assert dict(answer.json()["headers"])["host"] == f"127.0.0.1:{mesh.page_port}"
    assert request(mesh.web.outbound, "/x", host="db").status == 404  # nobody speaks HTTP to db


def test_a_port_that_is_taken_is_said_and_hurts_nobody(mesh: Mesh) -> None:
    other = mesh.work.start_sidecar("other", 9)
    wait_until(other.ready, READY)
    reasons = f"listener 'outbound|db': cannot listen on 127.0.0.1:{mesh.db_port}: Address already in use"

    def refusal() -> str:
        (proxy,) = (it for it in mesh.work.status().proxies if it.service == "other")
        return "".join(it.error for it in proxy.resources)

    assert reasons in wait_until(refusal, READY, "the refusal in the status")
    assert reasons in other.process.output()
    assert mesh.work.wait_for(other, "page").status == 200
    # Nor may a local port hide an app that has not started yet.
    hidden = mesh.work.start_sidecar("other", mesh.db_port, instance="other-2")
    reason = f"cannot listen on 127.0.0.1:{mesh.db_port}: {mesh.db_port} is the app's own (--app-port)"
    wait_until(lambda: hidden.process.find(re.escape(reason)), READY)
    wait_until(hidden.ready, READY)
    # What changes later reaches it all the same.
    mesh.work.apply("kind: Service\nname: late\n")
    wait_until(lambda: request(other.outbound, "/", host="late").status == 503, READY, "the new service")
    with connect(mesh.db_port) as sock:
        sock.sendall(b"web's still\n")
        assert sock.recv(100) == b"web's still\n"


def test_an_instance_that_dies_and_a_service_that_moves(work: Harness) -> None:
    (port,) = free_ports(1)
    work.up_control_plane()
    text = "kind: Service\nname: web\n---\nkind: Service\nname: db\nprotocol: tcp\nlocalPort: {}\n"
    work.apply(text.format(port))
    with app_in_thread() as app:
        web = work.start_sidecar("web", 9)
        wait_until(web.ready, READY)
        first = work.up_sidecar("db", app, instance="db-1")
        work.up_sidecar("db", app, instance="db-2")
        work.wait_for_endpoints(web, "db", 2)
        kill(first.process.pid, *first.workers())
        assert len(endpoints(web, "db")) == 2  # nobody has told web yet
        for _ in range(10):
            with connect(port) as sock:
                sock.sendall(b"still there?")
                assert sock.recv(100) == b"still there?"
        (elsewhere,) = free_ports(1)
        work.apply(text.format(elsewhere))
        wait_until(lambda: accepts(elsewhere), READY, "the new port")
        wait_until(lambda: not accepts(port), READY, "the old port is closed")
        with connect(elsewhere) as sock:
            sock.sendall(b"here")
            assert sock.recv(100) == b"here"


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
