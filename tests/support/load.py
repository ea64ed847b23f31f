"""Open-loop load from a thread: exact about what became of each request, and retrying nothing.

Every request has a connection of its own (Connection: close), so that a refused connection is seen as one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

TIMEOUT = 10.0
"""Seconds for one request."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`result` is a status ("200"), "refused", "reset" (no or half an answer), or "timeout"; times are
    time.monotonic()."""

    began: float
    ended: float
    result: str
    body: bytes = b""


class Load:
    """Use as a context manager: load runs inside of it; `outcomes` grows, and is complete after it."""

    def __init__(self, port: int, host: str, rate: float = 50.0, path: str = "/") -> None:
        """GETs for `host` to 127.0.0.1:`port`, `rate` a second."""
        self.outcomes: list[Outcome] = []
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
        self._interval = 1 / rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """No new requests; wait for those in flight."""
        self._stopping.set()
        self._thread.join(TIMEOUT + 5)

    def results(self) -> Counter[str]:
        """How many of each result so far."""
        return Counter(outcome.result for outcome in tuple(self.outcomes))

    def failures(self) -> list[Outcome]:
        """Everything that was not answered 200."""
        return [outcome for outcome in tuple(self.outcomes) if outcome.result != "200"]

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._stopping.is_set():
            task = asyncio.create_task(self._one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    async def _one(self) -> None:
        began = time.monotonic()
        body = b""
        try:
            async with asyncio.timeout(TIMEOUT):
                result, body = await self._exchange()
        except TimeoutError:
            result = "timeout"
        self.outcomes.append(Outcome(began, time.monotonic(), result, body))

    async def _exchange(self) -> tuple[str, bytes]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return "refused", b""
        try:
            writer.write(self._request)
            answer = await reader.read()
        except OSError:
            return "reset", b""
        finally:
            writer.close()
        head, end, body = answer.partition(b"\r\n\r\n")
        if not end or not complete(head, body):
            return "reset", body
        return head.split(b" ", 2)[1].decode("latin-1"), body


def complete(head: bytes, body: bytes) -> bool:
    """Whether the body is as long as the head says; chunked: whether it has its end."""
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) == int(value)
        if name == b"transfer-encoding":
            return body.endswith(b"0\r\n\r\n")
    return True
