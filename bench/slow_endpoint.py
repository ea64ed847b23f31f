"""One slow endpoint of ten: what load balancing makes of it. By hand: python -m bench.slow_endpoint [rounds] [rate].

The same bootstrap runs in Envoy (LEAST_REQUEST) and in Pillion (LEAST_REQUEST, then PEAK_EWMA), one after the other,
round by round. Requests come at a fixed rate, whatever the answers do. Printed are the percentiles of all rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions."
_FAST: Final = 0.002
_SLOW: Final = 0.1
_SECONDS: Final = 8.0
_WARM: Final = 1.0  # at the beginning of each round, not counted
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_REQUEST: Final = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _bootstrap(port: int, upstreams: list[int], ewma: bool) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "app"}}
    manager = {
        "@type": _EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": _EXTENSIONS + "filters.http.router.v3.Router"}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoints = [{"endpoint": {"address": _address(upstream)}} for upstream in upstreams]
    ours = {"metadata": {"filter_metadata": {"pillion": {"lb_policy": "PEAK_EWMA"}}}} if ewma else {}
    cluster = {
        "name": "app",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]},
        **ours,
    }
    listener = {"name": "in", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {
        "node": {"id": "n", "cluster": "c"},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


async def _upstream(delay: float) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(delay)
                writer.write(_ANSWER)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


class _Load:
    """Requests at a rate over as many connections as it takes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.times: list[float] = []

    async def one(self, due: float, counted: bool) -> None:
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head)
        self.idle.append((reader, writer))
        if counted:
            self.times.append(time.perf_counter() - due)

    async def run(self, rate: int) -> None:
        tasks = []
        began = time.perf_counter()
        for number in range(int(rate * _SECONDS)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one(due, number / rate >= _WARM)))
        await asyncio.gather(*tasks)
        for _, writer in self.idle:
            writer.close()


async def _measure(name: str, upstreams: list[int], rate: int, directory: Path) -> list[float]:
    port = _free_port()
    file = directory / f"{name.replace(' ', '-')}.json"
    file.write_text(json.dumps(_bootstrap(port, upstreams, name.endswith("PEAK_EWMA"))))
    command = [sys.executable, "-m", "proxy", "-c", str(file), "--workers", "1"]
    if name.startswith("Envoy"):
        envoy = Path(sys.executable).with_name("envoy")
        command = [str(envoy), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet, env=os.environ)
    try:
        for _ in range(200):
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.1)
        load = _Load(port)
        await load.run(rate)
        return load.times
    finally:
        process.terminate()
        await process.wait()


async def _main(rounds: int, rate: int) -> None:
    servers = [await _upstream(_SLOW if number == 0 else _FAST) for number in range(10)]
    upstreams = [server.sockets[0].getsockname()[1] for server in servers]
    found: dict[str, list[float]] = {"Envoy LEAST_REQUEST": [], "Pillion LEAST_REQUEST": [], "Pillion PEAK_EWMA": []}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            for name, times in found.items():
                times += await _measure(name, upstreams, rate, Path(directory))
    for name, times in found.items():
        times.sort()
        shown = [f"p{percent}={times[int(len(times) * percent / 100)] * 1000:.1f}ms" for percent in (50, 90, 99, 99.9)]
        slow = sum(1 for seconds in times if seconds >= _SLOW) / len(times)
        print(f"{name:22} {' '.join(shown)}  by the slow one: {slow:.2%}  n={len(times)}")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    asyncio.run(_main(*(given + [2, 200][len(given) :])))
