"""The generator against servers of known behaviour."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.errors import RequestsFailed
from bench.generator import Generator, answer_length

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(answer: Callable[[int], bytes | None]) -> Iterator[int]:
    """One thread that serves one connection at a time; `answer(n)` is what request n gets, None closes."""
    listening = socket.create_server(("127.0.0.1", 0))
    count = 0

    def serve() -> None:
        nonlocal count
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                while connection.recv(65536):
                    count += 1
                    reply = answer(count)
                    if reply is None:
                        break
                    connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def test_a_fixed_rate_sends_exactly_so_many() -> None:
    with server(lambda _: OK) as port, Generator(port, connections=1) as generator:
        window = generator.run(0.2, rate=200)
        assert window.requests == len(window.latencies) == 40
        assert 0.2 <= window.seconds < 5
        assert all(0 < latency < 5 for latency in window.latencies)


def test_windows_follow_each_other_on_the_same_connections() -> None:
    with server(lambda _: OK) as port, Generator(port, connections=1) as generator:
        first, second, third = generator.run(0.05), generator.run(0.05, rate=100), generator.run(0.05)
    assert first.requests > 0
    assert second.requests == 5
    assert third.requests > 0
    assert first.latencies == third.latencies == []


def test_a_stall_shows_in_every_request_that_it_held_up() -> None:
    """No coordinated omission: one answer comes 0.3 s late, and the 29 requests that were due meanwhile count it."""

    def stalls_once(number: int) -> bytes:
        if number == 11:  # the first is the connection's own
            time.sleep(0.3)
        return OK

    with server(stalls_once) as port, Generator(port, connections=1) as generator:
        window = generator.run(1.0, rate=100)
    held = sorted((latency for latency in window.latencies if latency > 0.02), reverse=True)
    assert window.requests == 100
    assert len(held) >= 25
    assert held[0] >= 0.3
    assert held[9] >= 0.2


def test_another_status_fails_with_what_it_said() -> None:
    sorry = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nsorry"
    with (
        server(lambda number: OK if number < 3 else sorry) as port,
        Generator(port, connections=1) as generator,
        pytest.raises(RequestsFailed, match="503 Service Unavailable: sorry"),
    ):
        generator.run(0.5)


@pytest.mark.parametrize("rate", [None, 100.0])
def test_a_closed_connection_fails(rate: float | None) -> None:
    with (
        server(lambda number: OK if number < 3 else None) as port,
        Generator(port, connections=1) as generator,
        pytest.raises(RequestsFailed, match="connection closed"),
    ):
        generator.run(0.5, rate)


def test_nobody_listening_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(RequestsFailed, match="cannot connect"):
        Generator(port)


def test_half_an_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.generator.GRACE", 0.2)
    with server(lambda _: OK[:20]) as port, pytest.raises(RequestsFailed, match="not answered within"):
        Generator(port, connections=1)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-le", None),
        (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 10\r\n\r\n12", 49),
        (b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n12", -1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n12", -1),
    ],
)
def test_answer_length(data: bytes, length: int | None) -> None:
    assert answer_length(data) == length
