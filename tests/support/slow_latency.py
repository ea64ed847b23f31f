"""What slow clients cost a good one: latency without and with them, in turns. Run by hand:

    python -m tests.support.slow_latency [PAIRS] [SLOW] [SECONDS]

A worker, its app, the slow clients and the good one are processes of their own. The good one asks 200 times a
second at intended times, so that a stall counts for every request that it delays. The slow ones are a quarter each
of silent and dripping heads, dripping bodies, and idle connections; who drips sends a byte a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import sys
import time

from proxy.config.cluster import CircuitBreakers
from tests.support import slow, storm
from tests.support.worker import snapshot, upstream, worker

RATE = 200
REQUEST = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
KINDS = (slow.idle, slow.silent_head, slow.dripping_head, slow.dripping_body)


async def _slow(port: int, count: int) -> None:
    """The process of the slow clients: they stay until stdin ends."""
    clients = [KINDS[number % len(KINDS)]() for number in range(count)]
    await slow.connect_all(port, clients)
    dripping = asyncio.create_task(slow.drip(clients, 1.0))
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    dripping.cancel()
    print("still open", sum(not client.closed for client in clients), flush=True)


async def _app() -> None:
    """The process of the app."""
    async with upstream(storm.app) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _measure(port: int, seconds: float) -> tuple[float, float]:
    """(p50, p99) in milliseconds of one good client's requests, from their intended times on."""
    took = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.monotonic() + 0.1
        for number in range(int(seconds * RATE)):
            due = begin + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            sock.sendall(REQUEST)
            data = b""
            while not data.endswith(b"ok"):
                data += sock.recv(4096)
            took.append((time.monotonic() - due) * 1000)
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


async def _child(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.slow_latency", *arguments, stdin=pipe, stdout=pipe
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def main(pairs: int, count: int, seconds: float) -> None:
    """Measure and print."""
    app = await _child("--app")
    ratios = []
    async with worker() as one:
        config = snapshot(
            one.port,
            int(await _line(app)),
            cluster={"circuit_breakers": CircuitBreakers(4000, 4000, 4000)},
            action={"timeout": 0.0},
            http={"request_headers_timeout": 600.0},
        )
        assert await one.apply(config) is None
        _measure(one.port, 1.0)
        for _ in range(pairs):
            alone = await asyncio.to_thread(_measure, one.port, seconds)
            others = await _child("--slow", str(one.port), str(count))
            assert await _line(others) == "connected"
            among = await asyncio.to_thread(_measure, one.port, seconds)
            assert others.stdin is not None
            others.stdin.close()
            stayed = await _line(others)
            await others.wait()
            ratios.append(among[1] / alone[1])
            print(f"alone p50 {alone[0]:.2f} p99 {alone[1]:.2f} ms; among {count} ({stayed}) ", end="")
            print(f"p50 {among[0]:.2f} p99 {among[1]:.2f} ms; p99 ratio {ratios[-1]:.2f}", flush=True)
            async with asyncio.timeout(20):
                while await one.gauge("downstream_cx_active"):  # noqa: ASYNC110  # another process's gauge
                    await asyncio.sleep(0.1)
    await _end(app)
    print(f"median p99 ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    with slow.many_descriptors(), contextlib.suppress(KeyboardInterrupt):
        match sys.argv[1:]:
            case ["--slow", port, count]:
                asyncio.run(_slow(int(port), int(count)))
            case ["--app"]:
                asyncio.run(_app())
            case found:
                given = [*map(float, found), *(7, 2000, 4.0)[len(found) :]]
                asyncio.run(main(int(given[0]), int(given[1]), given[2]))
