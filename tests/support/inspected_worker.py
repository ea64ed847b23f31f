"""A worker that tells what it holds: the same loop, channel and Worker as `python -m proxy.worker`, and on SIGUSR1
a report of its own state in the file that REPORT names. Run as a script; `inspected()` starts one and asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from proxy.worker import channel
from proxy.worker.__main__ import Link
from proxy.worker.runtime import Worker as Runtime
from tests.support.wait import until
from tests.support.worker import Worker


@dataclass(frozen=True, slots=True)
class Report:
    """`objects`: how many of each type the collector knows, "module.Type"; `clusters`: the load that each cluster
    and its endpoints believe to have; `tasks`: asyncio's, without the worker's own; `timed`: entries of the wheel."""

    objects: dict[str, int]
    clusters: dict[str, dict[str, int]]
    tasks: int
    timed: int

    def ours(self) -> dict[str, int]:
        """The objects of the sidecar's own types."""
        return {name: count for name, count in self.objects.items() if name.startswith("proxy.")}


class Inspected(Worker):
    """A Worker with a report."""

    report_path: Path

    async def report(self) -> Report:
        """What it holds now."""
        self.report_path.unlink(missing_ok=True)
        os.kill(self.process.pid, signal.SIGUSR1)
        await until(self.report_path.exists, 10, "the worker's report")
        return Report(**json.loads(self.report_path.read_text()))

    async def until_gauge(self, name: str, least: float = 0.0, most: float = 0.0, within: float = 10.0) -> None:
        """Wait until the sum of a gauge lies in that range. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while not least <= await self.gauge(name) <= most:  # noqa: ASYNC110  # another process's gauge
                await asyncio.sleep(0.02)

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident(self) -> int:
        """Bytes of its memory that are resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextlib.asynccontextmanager
async def inspected(directory: Path, backlog: int = 1024) -> AsyncIterator[Inspected]:
    """As tests.support.worker.worker(), with a report, which lies in `directory`."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    listening = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    path = directory / "report.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.inspected_worker",
        "--fd",
        str(theirs.fileno()),
        pass_fds=[theirs.fileno()],
        env={**os.environ, "REPORT": str(path)},
    )
    theirs.close()
    port = listening.getsockname()[1]
    try:
        one = Inspected(process, ours, listening, port)
        one.report_path = path
        await one.send(channel.Listen(f"127.0.0.1:{port}"), listening.fileno())
        yield one
    finally:
        ours.close()
        listening.close()
        await asyncio.wait_for(process.wait(), 10)


def _report(runtime: Runtime) -> Report:
    gc.collect()
    objects: Counter[str] = Counter(f"{type(it).__module__}.{type(it).__qualname__}" for it in gc.get_objects())
    clusters = {}
    for cluster in runtime._clusters.clusters.values():
        endpoints = cluster.endpoints.values()
        clusters[cluster.name] = {
            "active": cluster.active,
            "pending": cluster.pending,
            "retrying": cluster.retrying,
            "connections": cluster.connections,
            "endpoint active": sum(endpoint.active for endpoint in endpoints),
            "endpoint connections": sum(endpoint.connections for endpoint in endpoints),
            "connecting": sum(endpoint.connecting for endpoint in endpoints),
            "idle": sum(len(endpoint.idle) for endpoint in endpoints),
            "waiters": sum(len(endpoint.waiters) for endpoint in endpoints),
        }
    timed = sum(map(len, runtime._timers._buckets.values()))
    return Report(dict(objects), clusters, len(asyncio.all_tasks()) - 1, timed)


async def _serve(sock: socket.socket, path: Path) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    link = Link(sock, loop)
    link.worker = runtime = Runtime(loop, link.send, stopped.set)

    def tell() -> None:
        found = _report(runtime)
        partial = path.with_suffix(".part")
        partial.write_text(
            json.dumps({name: getattr(found, name) for name in ("objects", "clusters", "tasks", "timed")})
        )
        partial.rename(path)

    loop.add_signal_handler(signal.SIGUSR1, tell)
    await stopped.wait()


def main() -> None:
    """The script."""
    logging.basicConfig(level="INFO")
    sock = socket.socket(fileno=int(sys.argv[2]))
    sock.setblocking(False)
    with contextlib.closing(sock):
        uvloop.run(_serve(sock, Path(os.environ["REPORT"])))


if __name__ == "__main__":
    main()
