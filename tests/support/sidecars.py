"""Sidecars from bootstrap files, one or a pair over mutual TLS, and what the kernel says of their processes."""

from __future__ import annotations

import os
import re
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pillion.demo.processes import Process, children, free_ports
from tests.support import bootstrap
from tests.support.certificates import Authority
from tests.support.harness import Harness
from tests.support.http import request
from tests.support.wait import wait_until

OUT, IN = "spiffe://test/service/out", "spiffe://test/service/in"


@dataclass
class Sidecar:
    """A running sidecar: the agent's process, where it listens, where its admin port is."""

    process: Process
    listen: int
    admin: int

    @property
    def pids(self) -> list[int]:
        """The agent and all of its workers."""
        return [self.process.pid, *children(self.process.pid)]

    def memory(self) -> int:
        """Bytes: the proportional set size of all its processes together."""
        return sum(proportional(pid) for pid in self.pids)

    def descriptors(self) -> int:
        """How many descriptors its processes hold."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)


def proportional(pid: int) -> int:
    """Bytes of a process's memory, shared pages in proportion (Pss of proc_pid_smaps_rollup)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


class Peak:
    """Samples the memory of sidecars while it is entered; `highest` is the most that each ever had, in bytes."""

    def __init__(self, sidecars: dict[str, Sidecar], seconds: float = 0.05) -> None:
        self._sidecars = sidecars
        self._seconds = seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self.highest = dict.fromkeys(sidecars, 0)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ending.wait(self._seconds):
            for name, sidecar in self._sidecars.items():
                self.highest[name] = max(self.highest[name], sidecar.memory())


@dataclass
class Pair:
    """Two sidecars: plain HTTP to `front`, mutual TLS to `back`, plain HTTP to the app."""

    front: Sidecar
    back: Sidecar
    sidecars: dict[str, Sidecar] = field(init=False)

    def __post_init__(self) -> None:
        self.sidecars = {"front": self.front, "back": self.back}


def start(work: Harness, name: str, config: dict[str, Any], listen: int, admin: int, *options: str) -> Sidecar:
    """Start a sidecar from a bootstrap, with more options of the command, and wait until it is ready."""
    file = bootstrap.write(work.directory, name, config)
    process = work.tree.start(name, [sys.executable, "-m", "proxy", "-c", str(file), *options])

    def ready() -> bool:
        assert process.returncode is None, process.tail(30)
        try:
            return request(admin, "/ready").status == 200
        except OSError:
            return False

    wait_until(ready, 30, f"{name} is ready")
    return Sidecar(process, listen, admin)


def pair(work: Harness, app_port: int, route_timeout: str = "0s", manager: dict[str, Any] | None = None) -> Pair:
    """A pair in front of the app on `app_port`; `manager` adds fields to both HttpConnectionManagers."""
    ca = Authority()
    roots = work.directory / "ca.pem"
    roots.write_text(ca.pem)
    front_port, front_admin, back_port, back_admin = free_ports(4)
    server = bootstrap.tls("Downstream", *ca.issue(IN).write(work.directory, "in"), roots, OUT)
    client = bootstrap.tls("Upstream", *ca.issue(OUT).write(work.directory, "out"), roots, IN)
    inner = bootstrap.hop(back_port, app_port, back_admin, name="back", downstream_tls=server, manager=manager)
    outer = bootstrap.hop(front_port, back_port, front_admin, name="front", upstream_tls=client, manager=manager)
    for config in (inner, outer):
        route_action(config)["timeout"] = route_timeout
    back = start(work, "back", inner, back_port, back_admin)
    return Pair(start(work, "front", outer, front_port, front_admin), back)


def manager(config: dict[str, Any]) -> dict[str, Any]:
    """The HttpConnectionManager of a bootstrap.hop()."""
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    found: dict[str, Any] = chain["filters"][0]["typed_config"]
    return found


def route_action(config: dict[str, Any]) -> dict[str, Any]:
    """Its one route's action."""
    found: dict[str, Any] = manager(config)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    return found
