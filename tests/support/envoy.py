"""A real Envoy with listeners of our making, and requests to it as raw bytes: the judge in questions of behaviour."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.bootstrap import HCM, TYPES, address

ENVOY = Path(sys.executable).with_name("envoy")
MISSING = not (ENVOY.exists() or shutil.which("envoy"))


class Envoy:
    """A running one; `ports` are those of its listeners, in order."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports

    def ask(self, index: int, request: bytes) -> bytes:
        """The head of the answer to `request`, sent to a listener on a new connection."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.ports[index]), 10) as connection:
            connection.sendall(request)
            while b"\r\n\r\n" not in answer:
                data = connection.recv(65536)
                if not data:
                    break
                answer += data
        return answer


@contextlib.contextmanager
def envoy(
    directory: Path, managers: list[dict[str, Any]], clusters: tuple[dict[str, Any], ...] = ()
) -> Iterator[Envoy]:
    """One Envoy, one listener for each HttpConnectionManager in `managers` (as JSON; the router is added)."""
    ports = _free_ports(len(managers))
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": TYPES + "filters.http.router.v3.Router"},
    }
    listeners = []
    for port, manager in zip(ports, managers, strict=True):
        config = {"@type": HCM, "stat_prefix": "judge", "http_filters": [router], **manager}
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
        listeners.append({"name": f"l{port}", "address": address(port), "filter_chains": [chain]})
    file = directory / "envoy.yaml"
    file.write_text(yaml.safe_dump({"static_resources": {"listeners": listeners, "clusters": list(clusters)}}))
    log = directory / "envoy.log"
    command = [str(ENVOY), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=stderr, stderr=stderr)
    try:
        for port in ports:
            _wait(port, process, log)
        yield Envoy(ports)
    finally:
        process.terminate()
        process.wait(10)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        else:
            return
