"""The proxies under test: which there are, how each is started, and how one knows that it is ready."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import peers
from bench.bootstrap import bootstrap
from bench.errors import ProxyFailed
from bench.machine import ENVOY, HAPROXY, NGINX, Tool
from bench.sidecar import Sidecar
from pillion.demo.processes import Process, Tree

PYTHON: Final = (sys.executable, "-m")

READY = 60.0
"""Seconds that a proxy may take to listen; a thousand clusters on a busy machine take some."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A proxy. `write` puts its configuration into the directory and returns the command; `tool` is None for Pillion
    itself. `ready` is what it prints when it serves, for one that listens before. `cannot` are the roles that it does
    not have, and why.
    """

    name: str
    title: str
    write: Callable[[Sidecar, Path, str], list[str]]
    tool: Tool | None = None
    logs_to_stdout: bool = False
    ready: str = ""
    cannot: dict[str, str] = field(default_factory=dict)

    def missing(self, role: str) -> str | None:
        """Why it cannot be measured in this role; None when it can."""
        if self.tool is not None and self.tool.path() is None:
            return self.tool.missing()
        return self.cannot.get(role)


def _pillion(sidecar: Sidecar, directory: Path, _program: str) -> list[str]:
    path = directory / f"{sidecar.name}.yaml"
    path.write_text(bootstrap(sidecar), encoding="utf-8")
    return [*PYTHON, "proxy", "-c", str(path), "--log-level", "warning"]


def _envoy(sidecar: Sidecar, directory: Path, program: str) -> list[str]:
    path = directory / f"{sidecar.name}.yaml"
    path.write_text(bootstrap(sidecar), encoding="utf-8")
    return [program, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def _haproxy(sidecar: Sidecar, directory: Path, program: str) -> list[str]:
    path = directory / f"{sidecar.name}.cfg"
    path.write_text(peers.haproxy(sidecar), encoding="utf-8")
    return [program, "-db", "-f", str(path)]


def _nginx(sidecar: Sidecar, directory: Path, program: str) -> list[str]:
    path = directory / f"{sidecar.name}.conf"
    path.write_text(peers.nginx(sidecar, directory), encoding="utf-8")
    return [program, "-c", str(path), "-e", "stderr"]


KINDS: Final = (
    Kind("pillion", "Pillion", _pillion, ready="pillion proxy ready"),
    Kind("envoy", "Envoy", _envoy, ENVOY),
    Kind("haproxy", "HAProxy", _haproxy, HAPROXY, logs_to_stdout=True),
    Kind("nginx", "nginx", _nginx, NGINX, cannot={"tcp": "nginx as a TCP proxy is not measured (a module of its own)"}),
)


@dataclass(frozen=True, slots=True)
class Running:
    """A started sidecar. `log` is its access log."""

    sidecar: Sidecar
    process: Process
    log: Path

    @property
    def pid(self) -> int:
        """The process that was started; workers are below it."""
        return self.process.pid


def start(kind: Kind, sidecars: Sequence[Sidecar], tree: Tree, directory: Path) -> list[Running]:
    """Start one process for each sidecar, listed from the client on, and wait until it listens. Raises ProxyFailed."""
    started: list[Running] = []
    for sidecar in reversed(sidecars):  # from the upstream on: a check of what is not there yet would fail
        program = kind.tool.path() if kind.tool is not None else ""
        if program is None:
            raise ProxyFailed(f"{kind.title} is not installed")
        process = tree.start(sidecar.name, kind.write(sidecar, directory, program))
        wait(process, sidecar.listen, kind.ready)
        started.insert(0, Running(sidecar, process, process.log if kind.logs_to_stdout else sidecar.log))
    return started


def wait(process: Process, port: int, ready: str = "") -> None:
    """Until it has printed `ready` and something accepts on 127.0.0.1:`port`.

    Raises ProxyFailed when the process ends first, or after READY.
    """
    deadline = time.monotonic() + READY
    while True:
        if process.returncode is not None:
            raise ProxyFailed(f"ended with status {process.returncode}\n{process.tail()}")
        if ready in process.output() and _accepts(port):
            return
        if time.monotonic() > deadline:
            raise ProxyFailed(f"not ready after {READY:g} s\n{process.tail()}")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True
