"""A real worker process with a listener, a cluster and an access log for each lane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxy.config.listener import AccessLog
from proxy.config.route import WeightedCluster
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.conformance.drive import Lane
from tests.support.worker import Worker, snapshot, worker

_LINE = (
    ("client", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("path", "%REQ(:PATH)%"),
    ("status", "%RESPONSE_CODE%"),
    ("flags", "%RESPONSE_FLAGS%"),
)


@dataclass(slots=True)
class Log:
    """The access log's records by client address, those of probes left out. Filled when the sidecar has ended."""

    path: Path
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def read(self) -> None:
        for line in self.path.read_text(errors="surrogateescape").splitlines():
            record = json.loads(line)
            if record["path"] != "/probe":
                self.records.setdefault(record["client"], []).append(record)


def lane_snapshot(lanes: list[Lane], log: Path, http: dict[str, Any] | None = None) -> Snapshot:
    """Listener and cluster "N" for lane N."""
    whole = Snapshot()
    for number, lane in enumerate(lanes):
        name = str(number)
        one = snapshot(
            lane.port,
            lane.upstream_port,
            action={"clusters": (WeightedCluster(name),)},
            http={"accept_http_10": True, "access_logs": (AccessLog(str(log), json_format=_LINE),), **(http or {})},
        )
        whole = replace(
            whole,
            listeners={**whole.listeners, name: replace(one.listeners["main"], name=name)},
            clusters={**whole.clusters, name: replace(one.clusters["app"], name=name, load_assignment=name)},
            assignments={**whole.assignments, name: replace(one.assignments["app"], name=name)},
        )
    return whole


@contextlib.asynccontextmanager
async def sidecar(lanes: list[Lane], log: Log, http: dict[str, Any] | None = None) -> AsyncIterator[Worker]:
    """A worker before the lanes' upstreams."""
    async with worker() as one:
        with contextlib.ExitStack() as stack:
            for lane in lanes:
                listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                lane.port = listening.getsockname()[1]
                await one.send(channel.Listen(f"127.0.0.1:{lane.port}"), listening.fileno())
            error = await one.apply(lane_snapshot(lanes, log.path, http))
            assert error is None, error
            yield one
            await one.send(channel.Drain(1.0))  # an orderly end writes the whole log
            await one.process.wait()
    log.read()


async def leaks(one: Worker, lanes: list[Lane]) -> list[str]:
    """What the worker still holds when all clients are gone, one line each; it gets some seconds to come to rest."""
    found: list[str] = []
    for _ in range(100):
        idle = sum(lane.open for lane in lanes)
        found = [
            f"{name} is {value:g} instead of {expected}"
            for name, expected in (("downstream_cx_active", 0), ("upstream_rq_active", 0), ("upstream_cx_active", idle))
            if (value := await one.gauge(name)) != expected
        ]
        if not found:
            break
        await asyncio.sleep(0.05)
    return found
