"""gRPC streams of large messages, both ways at once: how many bytes a second of CPU moves, the two directions together.

A real client and a real server (grpcio), with their windows, pings and pauses. They are slower than a proxy could be;
what counts is what a byte costs the proxy, at the pace that each proxy is given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import grpc

from bench.errors import RequestsFailed
from bench.grpc_upstream import MESSAGE, MESSAGES
from bench.plan import Contender, Plan, Run
from bench.result import Scenario
from bench.shapes import Shape

CHANNELS: Final = 2
"""Connections, each with one stream in either direction."""

TIMEOUT: Final = 30.0
"""Seconds that one stream may take."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """See the module."""

    name: str
    title: str
    shape: Shape

    def steps(self, plan: Plan, proxies: int) -> int:
        return (proxies + plan.control(self.name)) * (1 + plan.pairs)

    def run(self, run: Run) -> Scenario:
        about = (
            f"messages of {len(MESSAGE) // 1024} KiB in streams of {MESSAGES}, one after the other; {CHANNELS} "
            "connections with one stream in either direction; client and server are grpcio"
        )
        scenario = Scenario(self.name, self.title, about)
        seconds = run.plan.seconds

        def measure(contender: Contender) -> None:
            deployed = contender.deployed
            with Streams(deployed.port) as streams:
                streams.wait(TIMEOUT)
                before, moved = deployed.cpu(), streams.moved()
                time.sleep(seconds)
                used, moved = deployed.cpu() - before, streams.moved() - moved
            deployed.check()
            if not moved or not used:
                raise RequestsFailed("no bytes went through")
            contender.subject.add("bytes_per_cpu_second", moved / used * contender.subject.sidecars)

        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, self.shape)
            run.turns(scenario, "bytes", contenders, measure, lambda one: one.subject.title)
            run.inspect(scenario, contenders)
            run.end(scene, scenario, contenders)
        return scenario


class Streams:
    """Threads that send and receive until the end of the block; it raises RequestsFailed when one of them failed.

    Each then finishes the stream that it is at.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = False
        self._counts = [0] * (2 * CHANNELS)
        self._failure: str | None = None
        self._ended = threading.Semaphore(0)

    def __enter__(self) -> Streams:
        own = (("grpc.use_local_subchannel_pool", 1),)  # else the channels share one connection
        self._channels = [grpc.insecure_channel(f"127.0.0.1:{self._port}", options=own) for _ in range(CHANNELS)]
        self._threads = []
        for number in range(2 * CHANNELS):
            work = self._send if number % 2 else self._receive
            channel = self._channels[number // 2]
            self._threads.append(threading.Thread(target=self._repeat, args=(work, number, channel), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()
        for channel in self._channels:
            channel.close()
        if kind is None:
            self._check()

    def wait(self, seconds: float) -> None:
        """Until as many streams have ended as there are at a time. Raises RequestsFailed."""
        for _ in self._threads:
            if not self._ended.acquire(timeout=seconds):
                raise RequestsFailed(f"no stream ended within {seconds:g} s")
            self._check()

    def moved(self) -> int:
        """Bytes of messages sent and received so far, by this end."""
        return sum(self._counts)

    def _check(self) -> None:
        if self._failure is not None:
            raise RequestsFailed(self._failure)

    def _repeat(self, work: Callable[[int, grpc.Channel], str | None], number: int, channel: grpc.Channel) -> None:
        while not self._stopping and self._failure is None:
            try:
                wrong = work(number, channel)
            except grpc.RpcError as error:
                wrong = str(error)
            self._failure = self._failure or wrong
            self._ended.release()

    def _receive(self, number: int, channel: grpc.Channel) -> str | None:
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/bench.Echo/Download")
        count = 0
        for message in stream(b"", timeout=TIMEOUT):
            self._counts[number] += len(message)
            count += 1
        return None if count == MESSAGES else f"a download ended after {count} messages, with no error"

    def _send(self, number: int, channel: grpc.Channel) -> str | None:
        stream: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/bench.Echo/Upload")

        def messages() -> Iterator[bytes]:
            for _ in range(MESSAGES):
                self._counts[number] += len(MESSAGE)
                yield MESSAGE

        arrived = stream(messages(), timeout=TIMEOUT)
        wanted = MESSAGES * len(MESSAGE)
        return None if int(arrived) == wanted else f"of {wanted} bytes {int(arrived)} arrived, with no error"
