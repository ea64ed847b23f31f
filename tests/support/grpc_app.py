"""A gRPC server for tests, as a process of its own: bytes in, bytes out, no protobuf stubs. Run as a script; `start()`
runs it in a harness.

Methods of `test.Calls`, steered by metadata and by what the messages say:

- Unary, Collect (client stream), Split (server stream), Chat (bidirectional): echoes, see below. All of them send the
  caller's `my-` metadata back, once as initial and once as trailing metadata, where the names begin with `t-`.
- Fail: ends with the code in `x-code`, the request as its details, and the rich details in `x-details-bin`, if any.

The asyncio server, which is the default, has these too; `key` is the request, any bytes that name one call:

- Wait: ends only by cancellation. Noted(key): what was noted of that call, as JSON, e.g. the time of its end.
- Hold: reads nothing until Release(key), where the key is the first message. Flood: endless messages of 64 KiB.
- Remaining: how many seconds the caller's deadline leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from pillion.demo.processes import Process, free_ports
from tests.support.harness import READY, Harness
from tests.support.wait import wait_until

NAME = "test.Calls"
BLOCK = bytes(range(256)) * 256
"""One message of Flood."""
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.bdp_probe", 0),  # windows of 64 KiB that do not grow
]
"""Of both sides."""
GRACE = 15.0
"""Seconds that calls under way may take after SIGTERM."""


def start(work: Harness, name: str, *flags: str, port: int = 0) -> tuple[Process, int]:
    """Start one in a harness: (process, port), once it listens."""
    port = port or free_ports(1)[0]
    command = [sys.executable, "-m", "tests.support.grpc_app", "--port", str(port), "--name", name, *flags]
    process = work.tree.start(name, command)
    wait_until(lambda: process.find("ready"), READY, f"{name} is ready")
    return process, port


def path(method: str) -> str:
    """The :path of a method."""
    return f"/{NAME}/{method}"


def echoed(metadata: Any, prefix: str = "") -> list[tuple[str, str | bytes]]:
    """The caller's my- metadata."""
    return [(prefix + key, value) for key, value in metadata or () if key.startswith("my-")]


def failure(context: Any) -> tuple[grpc.StatusCode, tuple[tuple[str, str | bytes], ...]]:
    """What Fail is asked for: the code, the trailing metadata."""
    asked = dict(context.invocation_metadata())
    (code,) = (code for code in grpc.StatusCode if code.value[0] == int(asked["x-code"]))
    details = asked.get("x-details-bin")
    return code, () if details is None else (("grpc-status-details-bin", details),)


def summary(count: int, digest: Any) -> bytes:
    """Collect's answer: how many messages, and the SHA-256 of all of them."""
    return b"%d %s" % (count, digest.hexdigest().encode())


class Blocking:
    """The handlers of the synchronous server."""

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Split": grpc.unary_stream_rpc_method_handler(self.split),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }

    def _greet(self, context: grpc.ServicerContext) -> None:
        context.send_initial_metadata(echoed(context.invocation_metadata()))
        context.set_trailing_metadata(echoed(context.invocation_metadata(), "t-"))

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """The request."""
        self._greet(context)
        return request

    def collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """summary() of all messages."""
        self._greet(context)
        count, digest = 0, hashlib.sha256()
        for request in requests:
            count += 1
            digest.update(request)
        return summary(count, digest)

    def split(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """ "COUNT SIZE": so many messages of that size; the first byte of each is its number."""
        self._greet(context)
        count, size = map(int, request.split())
        for number in range(count):
            yield bytes([number % 256]) * size

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each message back as it comes."""
        self._greet(context)
        yield from requests

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """No answer but a status."""
        code, trailing = failure(context)
        context.set_trailing_metadata(trailing)
        context.abort(code, request.decode())
        raise AssertionError("abort raises")


class Async:
    """The handlers of the asyncio server; the first five do what those of Blocking do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.noted: dict[bytes, dict[str, float]] = {}
        self.released: dict[bytes, asyncio.Event] = {}

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Split": grpc.unary_stream_rpc_method_handler(self.split),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Noted": grpc.unary_unary_rpc_method_handler(self.tell),
            "Hold": grpc.stream_unary_rpc_method_handler(self.hold),
            "Release": grpc.unary_unary_rpc_method_handler(self.release),
            "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
            "Remaining": grpc.unary_unary_rpc_method_handler(self.remaining),
        }

    async def _greet(self, context: Any) -> None:
        metadata = context.invocation_metadata()
        await context.send_initial_metadata([("served-by", self.name), *echoed(metadata)])
        context.set_trailing_metadata(echoed(metadata, "t-"))

    async def unary(self, request: bytes, context: Any) -> bytes:
        """The request, after `nap` seconds if the metadata say so."""
        await self._greet(context)
        if nap := dict(context.invocation_metadata()).get("nap"):
            await asyncio.sleep(float(nap))
        return request

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await self._greet(context)
        count, digest = 0, hashlib.sha256()
        async for request in requests:
            count += 1
            digest.update(request)
        return summary(count, digest)

    async def split(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._greet(context)
        count, size = map(int, request.split())
        for number in range(count):
            yield bytes([number % 256]) * size

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await self._greet(context)
        async for request in requests:
            yield request

    async def fail(self, request: bytes, context: Any) -> bytes:
        code, trailing = failure(context)
        await context.abort(code, request.decode(), trailing)
        raise AssertionError("abort raises")

    def _note(self, key: bytes, what: str, value: float) -> None:
        self.noted.setdefault(key, {})[what] = value

    async def wait(self, key: bytes, context: Any) -> bytes:
        """Until it is cancelled; notes when it began and ended (time.monotonic, which all processes share)."""
        self._note(key, "began", time.monotonic())
        try:
            await asyncio.sleep(60)
        finally:
            self._note(key, "ended", time.monotonic())
        return b""

    async def tell(self, key: bytes, context: Any) -> bytes:
        """The notes on a call, as JSON."""
        return json.dumps(self.noted.get(key, {})).encode()

    async def hold(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """summary() of all messages but the first, none of which is read before Release."""
        iterator = aiter(requests)
        key = await anext(iterator)
        self._note(key, "began", time.monotonic())
        await self.released.setdefault(key, asyncio.Event()).wait()
        return await self.collect(iterator, context)

    async def release(self, key: bytes, context: Any) -> bytes:
        """Let Hold go on."""
        self.released.setdefault(key, asyncio.Event()).set()
        return b""

    async def flood(self, key: bytes, context: Any) -> AsyncIterator[bytes]:
        """BLOCK again and again until it is cancelled; notes how many bytes are on their way."""
        await self._greet(context)
        sent = 0
        while True:
            self._note(key, "sent", sent)
            yield BLOCK
            sent += len(BLOCK)

    async def remaining(self, request: bytes, context: Any) -> bytes:
        """Seconds, or "none"."""
        left = context.time_remaining()
        return b"none" if left is None else b"%f" % left


async def serve(port: int, name: str, streams: int) -> None:
    """The asyncio server, with health and reflection, until SIGTERM. A connection carries at most `streams` calls."""
    server = grpc.aio.server(options=[*OPTIONS, ("grpc.max_concurrent_streams", streams)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, Async(name).handlers()),))
    health = HealthServicer()
    await health.set(NAME, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(GRACE)


def serve_blocking(port: int) -> None:
    """The synchronous server until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, Blocking().handlers()),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    server.stop(GRACE).wait()


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--blocking", action="store_true")
    parser.add_argument("--streams", type=int, default=10_000)
    args = parser.parse_args()
    if args.blocking:
        serve_blocking(args.port)
    else:
        asyncio.run(serve(args.port, args.name, args.streams))


if __name__ == "__main__":
    main()
