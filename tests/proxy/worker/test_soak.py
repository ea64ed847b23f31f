"""Random clients against random upstreams: afterwards every gauge is zero and the worker still serves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct

import pytest

from proxy.config.cluster import CircuitBreakers, OutlierDetection
from proxy.config.route import RetryPolicy
from tests.support.worker import Worker, free_port, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = b"GET /good HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"


def faulty(rng: random.Random) -> object:
    """An app that breaks at a random moment, in a random way."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if rng.random() < 0.05:
            writer.transport.abort()
            return
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"GET /good " in head:
                writer.write(OK)
                continue
            what = rng.randrange(14)
            if what == 0:
                return
            if what == 1:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
                return
            if what == 2:
                writer.write(b"rubbish\r\n\r\n")
                return
            if what == 3:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
                await asyncio.sleep(rng.random() * 0.05)
                writer.write(b"zz\r\n" if rng.random() < 0.3 else b"0\r\n\r\n")
                if rng.random() < 0.3:
                    return
            elif what == 4:
                await asyncio.sleep(rng.random() * 0.3)  # past the route's timeout, sometimes
                writer.write(OK)
            elif what == 5:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil close")
                return
            elif what == 6:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000)
            elif what == 7:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + OK)
            elif what == 8:
                writer.write(OK + OK)
            elif what == 9:
                writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            else:
                writer.write(OK)

    return app


async def client(one: Worker, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    try:
        for _ in range(rng.randrange(1, 5)):
            kind = rng.randrange(6)
            if kind == 0:
                writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
                await asyncio.sleep(rng.random() * 0.02)
                writer.write(b"0\r\n\r\n" if rng.random() < 0.7 else b"zz\r\n")
            elif kind == 1:
                writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + b"x" * 50000)
                await asyncio.sleep(rng.random() * 0.02)
                if rng.random() < 0.7:
                    writer.write(b"x" * 50000)
            elif kind == 2:
                writer.write(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n" * 5)
            elif kind == 3:
                writer.write(b"HEAD /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HT")
            else:
                writer.write(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(rng.choice([1, 100, 100_000])), rng.random() * 0.1)
            if rng.random() < 0.2:
                break
        if rng.random() < 0.4 and not writer.is_closing():
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
    except ConnectionError:
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_drifts(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    async with worker() as one, upstream(faulty(rng)) as first, upstream(faulty(rng)) as second:  # type: ignore[arg-type]
        options = {
            "cluster": {
                "circuit_breakers": CircuitBreakers(max_connections=6, max_pending_requests=20, max_requests=25),
                "outlier_detection": OutlierDetection(
                    consecutive_5xx=8, base_ejection_time=0.05, always_eject_one_host=True
                ),
                "max_requests_per_connection": 20,
                "connect_timeout": 0.5,
            },
            "action": {"timeout": 0.2, "retry": RetryPolicy(frozenset(("reset", "connect-failure")), 2)},
        }
        sets = [(first, second), (first, free_port(), second), (second,), (first, second)]
        for number in range(8):
            assert await one.apply(snapshot(one.port, *sets[number % 4], **options)) is None  # type: ignore[arg-type]
            await asyncio.gather(*(client(one, rng) for _ in range(30)))
        await one.at_rest()
        assert await one.apply(snapshot(one.port, first, second)) is None
        answers = [await one.talk(LAST) for _ in range(10)]
        assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) >= 8  # some upstreams slam the door
        assert await one.apply(snapshot(one.port)) is None  # no endpoint left: every idle connection closes
        async with asyncio.timeout(5):
            while await one.gauge("upstream_cx_active") or await one.gauge("downstream_cx_active"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await one.gauge("upstream_rq_active") == 0
    err = capfd.readouterr().err
    assert "Traceback" not in err, err[err.index("Traceback") :][:3000]
