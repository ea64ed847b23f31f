"""Two thousand clients that take their time (slowloris): the others are served, and each slow one is cut in time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from proxy.config.cluster import CircuitBreakers
from proxy.config.listener import AccessLog
from proxy.config.snapshot import Snapshot
from tests.support import slow, storm
from tests.support.inspected_worker import Inspected, inspected
from tests.support.slow import Slow
from tests.support.wait import until
from tests.support.worker import snapshot, upstream

KIB = 1024
GOOD = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
HEADERS_TIMEOUT, IDLE_TIMEOUT, STREAM_IDLE, REQUEST_TIMEOUT = 4.0, 6.0, 4.0, 5.0
KINDS = {
    slow.idle: 550,
    slow.silent_head: 350,
    slow.dripping_head: 350,
    slow.silent_body: 350,
    slow.dripping_body: 350,
    slow.reader: 50,
}


def configuration(one: Inspected, port: int, log: Path) -> Snapshot:
    return snapshot(
        one.port,
        port,
        cluster={"circuit_breakers": CircuitBreakers(2000, 2000, 2000)},
        action={"timeout": 0.0},
        http={
            "access_logs": (AccessLog(str(log), text_format="%RESPONSE_CODE% %RESPONSE_FLAGS%\n"),),
            "request_headers_timeout": HEADERS_TIMEOUT,
            "idle_timeout": IDLE_TIMEOUT,
            "stream_idle_timeout": STREAM_IDLE,
            "request_timeout": REQUEST_TIMEOUT,
        },
    )


async def ask(port: int, times: int) -> None:
    """A good client: so many requests on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(GOOD)
        answer = await reader.readuntil(b"ok")
        assert answer.startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_two_thousand_slow_clients(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    clients = {kind: [kind() for _ in range(count)] for kind, count in KINDS.items()}
    everyone = [client for group in clients.values() for client in group]
    with slow.many_descriptors():
        async with inspected(tmp_path) as one, upstream(storm.app) as port:
            assert await one.apply(configuration(one, port, log)) is None
            await ask(one.port, 20)
            before, descriptors = one.resident(), one.descriptors()
            await slow.connect_all(one.port, clients[slow.idle])
            await one.until_gauge("downstream_cx_active", len(clients[slow.idle]), len(clients[slow.idle]))
            per_idle = (one.resident() - before) / len(clients[slow.idle])
            dripping = asyncio.create_task(slow.drip([*clients[slow.dripping_head], *clients[slow.dripping_body]], 0.2))
            await slow.connect_all(one.port, [client for client in everyone if client not in clients[slow.idle]])
            await asyncio.gather(*(ask(one.port, 20) for _ in range(10)))
            per_slow = (one.resident() - before) / len(everyone)
            assert sum(not client.closed for client in everyone) > 1000, "the slow ones were gone too soon to disturb"

            async with asyncio.timeout(15):
                while not all(client.closed for client in everyone if client not in clients[slow.reader]):
                    await asyncio.gather(*(ask(one.port, 5) for _ in range(2)))
            await one.until_gauge("downstream_cx_active")
            dripping.cancel()
            for client in clients[slow.reader]:
                client.read()
            await until(lambda: all(client.closed for client in everyone), 5, "every client is told")
            report = await one.report()
            await one.apply(snapshot(one.port))
            await one.until_gauge("upstream_cx_active")
            left = one.descriptors() - descriptors
            after = one.resident()
    print(
        f"{per_idle:.0f} bytes per idle connection, {per_slow:.0f} per slow one; {(after - before) / KIB:.0f} KiB stay"
    )
    for kind in (slow.silent_head, slow.dripping_head):
        assert {answer(client) for client in clients[kind]} == {b"HTTP/1.1 408 Request Timeout"}
    for kind in (slow.silent_body, slow.dripping_body):
        assert {answer(client) for client in clients[kind]} == {b"HTTP/1.1 408 Request Timeout"}
    assert {bytes(client.got) for client in clients[slow.idle]} == {b""}
    assert all(client.got.startswith(b"HTTP/1.1 200 OK\r\n") for client in clients[slow.reader])
    lines = log.read_text().split("\n")
    assert lines.count("408 DPE") == KINDS[slow.silent_head] + KINDS[slow.dripping_head]
    assert lines.count("408 SI") == KINDS[slow.silent_body]
    assert lines.count("408 DT") == KINDS[slow.dripping_body]
    assert lines.count("200 SI") == KINDS[slow.reader]
    cluster = report.clusters["app"]
    assert (cluster["active"], cluster["endpoint active"], cluster["waiters"], report.tasks) == (0, 0, 0, 0)
    assert left <= 0
    assert per_idle < 16 * KIB
    assert per_slow < 64 * KIB


def answer(client: Slow) -> bytes:
    """The status line that it was told."""
    return bytes(client.got).partition(b"\r\n")[0]
