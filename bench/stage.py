"""Everything that a run starts or writes, and its end: the upstreams, the proxies of a scenario, their files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import kernel, loaded, peers, proxies
from bench.errors import NotInstalled, ProxyFailed, RequestsFailed
from bench.machine import NGHTTPD, NGINX, Cores
from bench.proxies import Kind, Running
from bench.shapes import Shape, Site
from bench.sidecar import Identities
from bench.upstream import BODY, CALL, FRAMED
from pillion.demo.processes import Process, Tree, free_ports

LOG_LIMIT = 64 * 1024 * 1024
"""Bytes; a longer access log is emptied between two windows."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A proxy at work in a scenario: one sidecar or two. `port` is where load goes."""

    kind: Kind
    name: str
    title: str
    running: tuple[Running, ...]

    @property
    def port(self) -> int:
        """Of the sidecar that the client talks to."""
        return self.running[0].sidecar.listen

    @property
    def pids(self) -> list[int]:
        """One for each sidecar; workers are below them."""
        return [running.pid for running in self.running]

    def cpu(self) -> float:
        """Seconds of CPU that all of it has had so far."""
        return kernel.cpu_seconds(self.pids)

    def check(self) -> None:
        """Raises ProxyFailed when one of its processes has ended."""
        for running in self.running:
            if running.process.returncode is not None:
                raise ProxyFailed(f"{self.title}: a sidecar ended during the run\n{running.process.tail()}")

    def trim(self) -> None:
        """Empty access logs that have grown long."""
        for running in self.running:
            if running.log.exists() and running.log.stat().st_size > LOG_LIMIT:
                os.truncate(running.log, 0)

    def check_logs(self) -> None:
        """After its end: each sidecar must have logged requests. Raises RequestsFailed."""
        for running in self.running:
            if running.sidecar.role != "tcp" and not logged(running.log):
                raise RequestsFailed(f"{self.title}: {running.sidecar.name} wrote no access log; not a fair comparison")

    def loaded(self) -> dict[str, str]:
        """What its (first) process has loaded. Raises ProxyFailed."""
        pid = self.pids[0]
        return loaded.pillion(pid) if self.kind.tool is None else loaded.peer(self.kind.title, pid)


class Stage:
    """Use as a context manager: at its end nothing that it started or wrote is left."""

    def __init__(self, cores: Cores) -> None:
        self.cores = cores
        self.directory = Path(tempfile.mkdtemp(prefix="pillion-bench-"))
        logs = self.directory / "logs"
        logs.mkdir()
        self._tree = Tree(logs)
        self._before = os.sched_getaffinity(0)
        self._ports: dict[str, int] = {}
        self._identities: Identities | None = None
        self._sites = 0

    def __enter__(self) -> Stage:
        os.sched_setaffinity(0, {self.cores.load})
        return self

    def __exit__(self, *_: object) -> None:
        self._tree.stop(grace=2.0)
        shutil.rmtree(self.directory, ignore_errors=True)
        os.sched_setaffinity(0, self._before)

    @property
    def identities(self) -> Identities:
        """Certificates for a pair."""
        if self._identities is None:
            self._identities = Identities(self.directory)
        return self._identities

    def upstream(self, kind: str) -> int:
        """The port of a server on the load's core: `http` or `h2` (the same answer to every request), `grpc`, or
        `bytes` (TCP); started when first asked for.
        """
        if kind not in self._ports:
            port = free_ports(1)[0]
            start = {"http": self._http, "h2": self._h2, "grpc": self._grpc, "bytes": self._bytes}[kind]
            proxies.wait(start(port), port)
            self._ports[kind] = port
        return self._ports[kind]

    def _http(self, port: int) -> Process:
        program = NGINX.path()
        if program is None:
            return self._tree.start("http upstream", [*proxies.PYTHON, "bench.upstream", "http", str(port)])
        config = self.directory / "upstream.conf"
        config.write_text(peers.nginx_upstream(port, BODY, self.directory), encoding="utf-8")
        return self._tree.start("upstream", [program, "-c", str(config), "-e", "stderr"])

    def _h2(self, port: int) -> Process:
        """nghttpd, which serves a file as a gRPC server would answer a unary call. Raises NotInstalled."""
        program = NGHTTPD.path()
        if program is None:
            raise NotInstalled(NGHTTPD.missing())
        root = self.directory / "calls"
        root.mkdir()
        (root / CALL.removeprefix("/")).write_bytes(FRAMED)
        types = self.directory / "types"
        types.write_text("application/grpc grpc\n", encoding="utf-8")
        options = ("--no-tls", "--address=127.0.0.1", "--max-concurrent-streams=1000", "--trailer=grpc-status: 0")
        return self._tree.start(
            "h2 upstream", [program, *options, f"--mime-types-file={types}", f"--htdocs={root}", str(port)]
        )

    def _grpc(self, port: int) -> Process:
        return self._tree.start("grpc upstream", [*proxies.PYTHON, "bench.grpc_upstream", str(port)])

    def _bytes(self, port: int) -> Process:
        return self._tree.start("bytes upstream", [*proxies.PYTHON, "bench.upstream", "bytes", str(port)])

    @contextmanager
    def scene(self) -> Iterator[Scene]:
        """The proxies of one scenario; they end with it."""
        self._sites += 1
        directory = self.directory / f"scene-{self._sites}"
        logs = directory / "logs"
        logs.mkdir(parents=True)
        tree = Tree(logs)
        try:
            yield Scene(self, tree, directory)
        finally:
            tree.stop(grace=3.0)
            shutil.rmtree(directory, ignore_errors=True)


class Scene:
    """Starts proxies for one scenario."""

    def __init__(self, stage: Stage, tree: Tree, directory: Path) -> None:
        self._stage, self._tree, self._directory = stage, tree, directory

    def deploy(self, kind: Kind, shape: Shape, name: str, title: str) -> Deployed:
        """Start `kind` in this shape, on the proxies' core, and wait until it listens. Raises ProxyFailed."""
        directory = self._directory / name
        directory.mkdir()
        sidecars = shape.sidecars(Site(self._stage, name, directory))
        with kernel.pinned(self._stage.cores.proxy):
            running = proxies.start(kind, sidecars, self._tree, directory)
        return Deployed(kind, name, title, tuple(running))

    def end(self) -> None:
        """End all of them now, so that what they had still to write is written."""
        self._tree.stop(grace=3.0)


def logged(path: Path) -> bool:
    """Whether an access log holds at least one whole line that is a JSON object with a status."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return any(_is_record(line) for line in lines)
    except FileNotFoundError:
        return False


def _is_record(line: str) -> bool:
    try:
        return "status" in json.loads(line)
    except (TypeError, ValueError):
        return False
