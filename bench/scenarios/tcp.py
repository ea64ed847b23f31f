"""Bytes through a TCP proxy, both legs plain: how many a second of CPU moves, uploads and downloads taken together."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from bench.errors import RequestsFailed
from bench.plan import Contender, Plan, Run
from bench.result import Scenario
from bench.shapes import TCP
from bench.upstream import CHUNK

STREAMS = 2
"""Connections in each direction."""


class Passthrough:
    """See the module."""

    name = "tcp"
    title = "TCP passthrough, plain legs"

    def steps(self, plan: Plan, proxies: int) -> int:
        return (proxies + plan.control(self.name)) * (1 + plan.pairs)

    def run(self, run: Run) -> Scenario:
        about = (
            f"{STREAMS} connections that send and {STREAMS} that receive, as fast as they can, writes of {CHUNK} bytes"
        )
        scenario = Scenario(self.name, self.title, about)
        seconds = run.plan.seconds

        def measure(contender: Contender) -> None:
            deployed = contender.deployed
            with Streams(deployed.port) as streams:
                time.sleep(0.1)
                before, moved = deployed.cpu(), streams.moved()
                time.sleep(seconds)
                used, moved = deployed.cpu() - before, streams.moved() - moved
            deployed.check()
            if not moved or not used:
                raise RequestsFailed("no bytes went through")
            contender.subject.add("bytes_per_cpu_second", moved / used)

        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, TCP)
            run.turns(scenario, "bytes", contenders, measure, lambda one: one.subject.title)
            run.inspect(scenario, contenders)
        return scenario


class Streams:
    """Threads that send and receive until the end of the block; it raises RequestsFailed when one of them failed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = False
        self._counts = [0] * (2 * STREAMS)
        self._failure: str | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Streams:
        try:
            for number in range(2 * STREAMS):
                connection = socket.create_connection(("127.0.0.1", self._port), 5.0)
                self._sockets.append(connection)
                work = self._send if number % 2 else self._receive
                self._threads.append(threading.Thread(target=work, args=(number, connection), daemon=True))
            for thread in self._threads:
                thread.start()
        except OSError as error:
            self._stop()
            raise RequestsFailed(f"cannot connect: {error}") from None
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop()
        if self._failure is not None and kind is None:
            raise RequestsFailed(self._failure)

    def _stop(self) -> None:
        self._stopping = True
        for connection in self._sockets:
            with contextlib.suppress(OSError):  # the peer was first
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for connection in self._sockets:
            connection.close()

    def moved(self) -> int:
        """Bytes sent and received so far, by this end."""
        return sum(self._counts)

    def _send(self, number: int, connection: socket.socket) -> None:
        chunk = memoryview(bytes(CHUNK))
        try:
            connection.sendall(b"U")
            while not self._stopping:
                self._counts[number] += connection.send(chunk)
        except OSError as error:
            self._fail("sending", error)

    def _receive(self, number: int, connection: socket.socket) -> None:
        buffer = bytearray(CHUNK)
        try:
            connection.sendall(b"D")
            while count := connection.recv_into(buffer):
                self._counts[number] += count
            if not self._stopping:
                self._failure = "receiving: the connection was closed"
        except OSError as error:
            self._fail("receiving", error)

    def _fail(self, what: str, error: OSError) -> None:
        if not self._stopping:
            self._failure = f"{what}: {error}"
