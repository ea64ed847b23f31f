"""grpcio's clients, synchronous and asyncio, behind one small interface: every kind of call gives one Result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from tests.support.grpc_app import OPTIONS, path

Metadata = Sequence[tuple[str, str | bytes]]
TIMEOUT = 30.0
"""Seconds for a call, unless a test says otherwise: nothing here takes a tenth of it."""


@dataclass(frozen=True)
class Result:
    """What a call came to; `error` is grpcio's own exception, or None."""

    messages: list[bytes]
    initial: list[tuple[str, str | bytes]]
    trailing: list[tuple[str, str | bytes]]
    code: grpc.StatusCode
    details: str
    error: Any = None

    @property
    def message(self) -> bytes:
        """The one message of the answer."""
        (message,) = self.messages
        return message


def options(authority: str) -> list[tuple[str, Any]]:
    """Of a channel: its connections are its own, it sends `authority` as :authority, it reconnects soon."""
    return [
        *OPTIONS,
        ("grpc.default_authority", authority),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]


@contextlib.contextmanager
def channel(port: int, authority: str) -> Iterator[grpc.Channel]:
    """A synchronous channel."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options(authority)) as one:
        yield one


@contextlib.asynccontextmanager
async def aio_channel(port: int, authority: str) -> AsyncIterator[grpc.aio.Channel]:
    """An asyncio channel."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options(authority)) as one:
        yield one


class Sync:
    """Calls with the synchronous client, each on a connection of its own."""

    def __init__(self, port: int, authority: str) -> None:
        self._port = port
        self._authority = authority

    def call(self, kind: str, method: str, *requests: bytes, **how: Any) -> Result:
        """`kind`: "unary_unary", "stream_unary", ...; `how`: metadata, timeout, compression."""
        how = {"timeout": TIMEOUT, **how}
        messages: list[bytes] = []
        with channel(self._port, self._authority) as one:
            start = getattr(one, kind)(path(method))
            argument = requests[0] if kind.startswith("unary") else iter(requests)
            error = None
            try:
                if kind.endswith("unary"):
                    message, call = start.with_call(argument, **how)
                    messages.append(message)
                else:
                    call = start(argument, **how)
                    messages += call
            except grpc.RpcError as failed:
                call = error = failed
            initial, trailing = plain(call.initial_metadata()), plain(call.trailing_metadata())
            return Result(messages, initial, trailing, call.code(), call.details() or "", error)


class Aio:
    """The same with the asyncio client."""

    def __init__(self, port: int, authority: str) -> None:
        self._port = port
        self._authority = authority

    def call(self, kind: str, method: str, *requests: bytes, **how: Any) -> Result:
        """As Sync.call."""
        return asyncio.run(self._call(kind, method, requests, {"timeout": TIMEOUT, **how}))

    async def _call(self, kind: str, method: str, requests: tuple[bytes, ...], how: dict[str, Any]) -> Result:
        messages: list[bytes] = []
        async with aio_channel(self._port, self._authority) as one:
            start = getattr(one, kind)(path(method))
            call = start(requests[0] if kind.startswith("unary") else iter(requests), **how)
            error = None
            try:
                if kind.endswith("unary"):
                    messages.append(await call)
                else:
                    async for message in call:
                        messages.append(message)  # noqa: PERF401  # those before an error count
            except grpc.aio.AioRpcError as failed:
                error = failed
            initial, trailing = plain(await call.initial_metadata()), plain(await call.trailing_metadata())
            return Result(messages, initial, trailing, await call.code(), await call.details() or "", error)


def plain(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Metadata as pairs, in order."""
    return [(key, value) for key, value in metadata or ()]
