"""A mesh of real processes for the integration tests: pillion.demo.mesh, with waiting and a hard end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from pillion.demo.mesh import ControlPlane, Mesh, Sidecar
from pillion.demo.processes import Process, Tree, free_ports
from tests.support import leaks
from tests.support.http import Response, request
from tests.support.wait import wait_until

READY = 30.0
"""Seconds for a process to come up; it takes one to two, on a busy machine more."""


class OwnedTree(Tree):
    """A tree whose processes may outlive one test (leaks.py leaves them alone), but not its owner."""

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Process:
        process = super().start(name, command, env)
        leaks.OWNED.add(process.pid)
        return process

    def show(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {process.name} ({process.returncode})\n{process.tail(30)}" for process in self.processes)


class Harness(Mesh):
    """Everything that its `up_` methods start is ready when they return."""

    tree: OwnedTree

    def up_control_plane(self, grpc_port: int = 0) -> ControlPlane:
        """Start it, or start it again on the same data (and the same port, if given)."""
        control_plane = self.start_control_plane(grpc_port)
        wait_until(control_plane.ready, READY, "the control plane is ready")
        return control_plane

    def restart_control_plane(self) -> ControlPlane:
        """After a kill: the same port, the same data."""
        return self.up_control_plane(int(self.control_plane.grpc.rpartition(":")[2]))

    def up_app(self, role: str = "ledger", version: str = "v1", name: str = "") -> tuple[Process, int]:
        """A sample service without calls of its own, as a process that can be killed: (process, port)."""
        port = free_ports(1)[0]
        command = [
            sys.executable,
            "-m",
            "pillion.demo.services",
            role,
            "--port",
            str(port),
            "--version",
            version,
        ]
        app = self.start_app(name or f"{role} {version} app", command)
        wait_until(lambda: app.find("ready"), READY, f"{role} is ready")
        return app, port

    def up_sidecar(self, service: str, app_port: int, **how: Any) -> Sidecar:
        """Mesh.start_sidecar, then wait until it serves."""
        sidecar = self.start_sidecar(service, app_port, **how)
        wait_until(sidecar.ready, READY, f"{service}'s sidecar is ready")
        return sidecar

    def wait_for(self, sidecar: Sidecar, host: str, path: str = "/") -> Response:
        """The first 200 for `host` through a sidecar's outbound port."""
        last: list[Any] = [None]

        def try_it() -> Response | None:
            try:
                last[0] = request(sidecar.outbound, path, host=host)
            except OSError as error:
                last[0] = error
                return None
            return last[0] if last[0].status == 200 else None

        try:
            return wait_until(try_it, READY, f"{host} answers", interval=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; last answer: {last[0]}") from None

    def wait_for_endpoints(self, sidecar: Sidecar, cluster: str, count: int) -> None:
        """Until the sidecar's /clusters knows exactly `count` endpoints of `cluster`."""
        wait_until(lambda: len(endpoints(sidecar, cluster)) == count, READY, f"{count} endpoints of {cluster}")


def endpoints(sidecar: Sidecar, cluster: str) -> set[str]:
    """The addresses of a cluster in the sidecar's /clusters (Envoy's JSON form)."""
    answer = request(sidecar.admin, "/clusters?format=json").json()
    found = set()
    for status in answer.get("cluster_statuses", []):
        if status["name"] == cluster:
            for host in status.get("host_statuses", []):
                address = host["address"]["socket_address"]
                found.add(f"{address['address']}:{address['port_value']}")
    return found


def metrics(sidecar: Sidecar | int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of /metrics by (name, labels); an int is an admin port."""
    port = sidecar if isinstance(sidecar, int) else sidecar.admin
    text = request(port, "/metrics").body.decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def metric(sidecar: Sidecar | int, name: str, **labels: str) -> float:
    """The sum of the samples with this name whose labels include `labels`; 0 when there are none."""
    wanted = labels.items()
    found = metrics(sidecar)
    return sum(value for (key, have), value in found.items() if key == name and wanted <= dict(have).items())


def access_log(process: Process) -> list[dict[str, Any]]:
    """The JSON lines of a sidecar's output."""
    lines = []
    for line in process.output().splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def kill(*pids: int) -> None:
    """SIGKILL."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Status and text of a failed call."""
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""


@contextlib.contextmanager
def harness(directory: Path) -> Iterator[Harness]:
    """A Harness in `directory`. At the end every process must go on SIGTERM, with all of its children."""
    logs = directory / "logs"
    logs.mkdir()
    tree = OwnedTree(logs)
    mesh = Harness(tree, directory)
    try:
        yield mesh
    finally:
        shown = tree.show()
        pids = [process.pid for process in tree.processes]
        killed = tree.stop()
        leaks.OWNED.difference_update(pids)
        print(shown)
        assert not killed, f"did not end on SIGTERM: {', '.join(killed)}\n{shown}"
