"""An upstream that answers with what it was asked, and remembers it. Plain asyncio streams, HTTP/1.1.

The path steers it: /status/503 answers with that status, /bytes/N with N bytes, /delay/S after S seconds (the
body is still the echo), /close closes the connection without an answer. Everything else is answered 200 with
a JSON echo.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from tests.support import leaks


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived; header names are lower case, in order."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header (lower-case name), or None."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(slots=True)
class Echo:
    """`port` is where it listens; `requests` so far, in order; `connections` counts those ever accepted."""

    name: str = "echo"
    port: int = 0
    connections: int = 0
    # It may live longer than one test, so connections that stay open are no leak; they end with it.
    longer: bool = False
    requests: list[Request] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        if self.longer:
            leaks.OWNED_SOCKETS.add(f"socket:[{os.fstat(writer.get_extra_info('socket').fileno()).st_ino}]")
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a client that goes away is no matter of ours; cancelled: the server closes
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        _, _, rest = request.path.partition("/")
        what, _, argument = rest.partition("?")[0].partition("/")
        status, body = 200, json.dumps(self.describe(request)).encode()
        if what == "status":
            status = int(argument)
        elif what == "bytes":
            body = b"x" * int(argument)
        elif what == "delay":
            await asyncio.sleep(float(argument))
        elif what == "close":
            return False
        head = f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\nx-echo: {self.name}\r\n"
        close = (request.header("connection") or "").lower() == "close"
        head += f"content-length: {len(body)}\r\n" + ("connection: close\r\n" if close else "") + "\r\n"
        writer.write(head.encode("latin-1") + (b"" if request.method == "HEAD" else body))
        await writer.drain()
        return not close

    def describe(self, request: Request) -> dict[str, object]:
        """The JSON echo."""
        return {
            "name": self.name,
            "method": request.method,
            "path": request.path,
            "headers": [list(pair) for pair in request.headers],
            "body": request.body.decode("latin-1"),
        }


@contextlib.asynccontextmanager
async def serving(name: str = "echo", port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[Echo]:
    """An Echo in the running event loop; open connections are closed at the end."""
    echo = Echo(name)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(echo.handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, port)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        yield echo
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextlib.contextmanager
def in_thread(name: str = "echo", port: int = 0) -> Iterator[Echo]:
    """An Echo with an event loop and a thread of its own, for tests that drive processes and wait."""
    started, ended = threading.Event(), asyncio.Event()
    found: list[Echo] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with serving(name, port) as echo:
            echo.longer = True
            found.append(echo)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name=f"echo {name}", daemon=True)
    thread.start()
    assert started.wait(5), "the echo upstream did not start"
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(5)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = [line.partition(":") for line in lines]
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    values = dict(headers)
    body = b""
    if values.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass  # trailers
    elif length := int(values.get("content-length", "0")):
        body = await reader.readexactly(length)
    return Request(method, path, headers, body)
