"""The same bootstrap with TCP listeners in Pillion and in the real Envoy: the same bytes, the same ends, the same log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pillion.demo.processes import Process, free_ports
from tests.support import bootstrap
from tests.support.harness import Harness, harness
from tests.support.http import request
from tests.support.tcp import END, app_in_thread, reset
from tests.support.wait import wait_until

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
TCP_PROXY = bootstrap.TYPES + "filters.network.tcp_proxy.v3.TcpProxy"
STDOUT = bootstrap.TYPES + "access_loggers.stream.v3.StdoutAccessLog"
FIELDS = {
    "listener": "",
    "flags": "%RESPONSE_FLAGS%",
    "code": "%RESPONSE_CODE%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": "%ROUTE_NAME%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
}
BOTH = pytest.mark.parametrize(
    "sidecar",
    [
        "pillion",
        pytest.param("envoy", marks=[pytest.mark.envoy, pytest.mark.skipif(ENVOY is None, reason="needs envoy")]),
    ],
    indirect=True,
    scope="module",
)


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An echo that obeys: RESET breaks the connection, CLOSE says bye and closes."""
    while data := await reader.read(1 << 18):
        if data == b"RESET":
            reset(writer)
            return
        if data == b"CLOSE":
            writer.write(b"bye")
            return
        writer.write(data)
        await writer.drain()
    writer.write(END)


def listener(name: str, port: int, cluster: str, **fields: Any) -> dict[str, Any]:
    log = {"@type": STDOUT, "log_format": {"json_format": {**FIELDS, "listener": name}}}
    relay = {
        "@type": TCP_PROXY,
        "stat_prefix": name,
        "cluster": cluster,
        "access_log": [{"name": "log", "typed_config": log}],
        **fields,
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": relay}]
    return {"name": name, "address": bootstrap.address(port), "filter_chains": [{"filters": filters}]}


def cluster(name: str, *ports: int, **fields: Any) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": bootstrap.address(port)}} for port in ports]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment, **fields}


@dataclass
class Sidecar:
    """Pillion or Envoy; `ports` by listener. `log` has been read up to `seen`."""

    process: Process
    ports: dict[str, int]
    seen: int = 0

    def connect(self, name: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[name]), timeout=10)

    def record(self, name: str) -> dict[str, Any]:
        """The one new line of a listener."""

        def new() -> list[dict[str, Any]]:
            lines = [line for line in self.process.output().splitlines() if line.startswith('{"')]
            return [json.loads(line) for line in lines][self.seen :]

        (record,) = wait_until(new, 15, "a line in the access log")  # Envoy writes every 10 s, unless told otherwise
        self.seen += 1
        assert record.pop("listener") == name
        assert [record.pop(key) for key in ("code", "protocol", "method", "route", "peer")] == [
            0,
            None,
            None,
            None,
            None,
        ]
        found: dict[str, Any] = record
        return found


@pytest.fixture(scope="module")
def sidecar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with harness(tmp_path_factory.mktemp("tcp")) as work, app_in_thread(app) as port:
        yield start(work, request.param, port)


def start(work: Harness, which: str, port: int) -> Sidecar:
    names = ("plain", "idle", "life", "refused", "second", "limited")
    dead, admin, *ports = free_ports(2 + len(names))
    by_name = dict(zip(names, ports, strict=True))
    limit = {"thresholds": [{"max_connections": 1}]}
    config = {
        "admin": {"address": bootstrap.address(admin)},
        "static_resources": {
            "listeners": [
                listener("plain", by_name["plain"], "app"),
                listener("idle", by_name["idle"], "app", idle_timeout="0.5s"),
                listener("life", by_name["life"], "app", max_downstream_connection_duration="0.7s"),
                listener("refused", by_name["refused"], "dead", max_connect_attempts=3),
                listener("second", by_name["second"], "both", max_connect_attempts=2),
                listener("limited", by_name["limited"], "limited"),
            ],
            "clusters": [
                cluster("app", port),
                cluster("dead", dead),
                cluster("both", dead, port),
                cluster("limited", port, circuit_breakers=limit),
            ],
        },
    }
    file = bootstrap.write(work.directory, which, config)
    flags = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--file-flush-interval-msec", "100")
    command = [sys.executable, "-m", "proxy", "-c", str(file)]
    process = work.tree.start(which, command if which == "pillion" else [str(ENVOY), "-c", str(file), *flags])

    def ready() -> bool:
        assert process.returncode is None, process.tail(30)
        try:
            return request(admin, "/ready").status == 200
        except OSError:
            return False

    wait_until(ready, 30, f"{which} is ready")
    return Sidecar(process, by_name)


def rest(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(1 << 18):
        received += data
    return received


@BOTH
def test_half_close(sidecar: Sidecar) -> None:
    with sidecar.connect("plain") as sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b"hello" + END
    assert sidecar.record("plain") == {"flags": "-", "received": 5, "sent": 8, "cluster": "app", "attempts": 1}


@BOTH
def test_bulk(sidecar: Sidecar) -> None:
    data = bytes(range(256)) * 40_000
    with sidecar.connect("plain") as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert rest(sock) == data + END
        sender.join()
    size = len(data)
    expected = {"flags": "-", "received": size, "sent": size + 3, "cluster": "app", "attempts": 1}
    assert sidecar.record("plain") == expected


@BOTH
def test_the_upstream_closes(sidecar: Sidecar) -> None:
    with sidecar.connect("plain") as sock:
        sock.sendall(b"CLOSE")
        assert rest(sock) == b"bye"
    assert sidecar.record("plain") == {"flags": "-", "received": 5, "sent": 3, "cluster": "app", "attempts": 1}


@BOTH
def test_the_upstream_resets(sidecar: Sidecar) -> None:
    with sidecar.connect("plain") as sock:
        sock.sendall(b"RESET")
        with pytest.raises(ConnectionResetError):
            rest(sock)
    assert sidecar.record("plain") == {"flags": "UR", "received": 5, "sent": 0, "cluster": "app", "attempts": 1}


@BOTH
def test_the_client_resets(sidecar: Sidecar) -> None:
    with sidecar.connect("plain") as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert sidecar.record("plain") == {"flags": "-", "received": 5, "sent": 5, "cluster": "app", "attempts": 1}


@BOTH
@pytest.mark.parametrize(("name", "flag"), [("idle", "-"), ("life", "DT")])
def test_time_is_over(sidecar: Sidecar, name: str, flag: str) -> None:
    with sidecar.connect(name) as sock:
        sock.sendall(b"x")
        assert rest(sock) == b"x"
    assert sidecar.record(name) == {"flags": flag, "received": 1, "sent": 1, "cluster": "app", "attempts": 1}


@BOTH
def test_nobody_accepts(sidecar: Sidecar) -> None:
    with contextlib.suppress(ConnectionResetError), sidecar.connect("refused") as sock:
        assert rest(sock) == b""  # Envoy closes, Pillion resets
    assert sidecar.record("refused") == {
        "flags": "UF,URX",
        "received": 0,
        "sent": 0,
        "cluster": "dead",
        "attempts": 3,
    }


@BOTH
def test_the_next_endpoint_is_tried(sidecar: Sidecar) -> None:
    found = set()
    for _ in range(3):
        with sidecar.connect("second") as sock:
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert rest(sock) == b"hello" + END
        record = sidecar.record("second")
        found.add((record["flags"], record["attempts"]))
    assert ("UF", 2) in found
    assert found <= {("UF", 2), ("-", 1)}


@BOTH
def test_the_limit_of_a_cluster(sidecar: Sidecar) -> None:
    with sidecar.connect("limited") as first:
        first.sendall(b"x")
        assert first.recv(1) == b"x"
        with contextlib.suppress(ConnectionResetError), sidecar.connect("limited") as second:
            assert rest(second) == b""
        assert sidecar.record("limited") == {
            "flags": "UO",
            "received": 0,
            "sent": 0,
            "cluster": "limited",
            "attempts": 0,
        }
    sidecar.record("limited")
