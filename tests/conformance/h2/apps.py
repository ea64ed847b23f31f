"""The good upstreams behind the sidecar: one speaks HTTP/1.1, one HTTP/2. Each answers with the request's body."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.conformance.wire import LIMIT, Message, Truncated, WireError, read_request
from tests.support import leaks

ANSWER = b"fine"
"""The body of the answer to a request without one."""


class App:
    """`seen` are its requests in order; `errors` tells of what was none."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[Message] = []
        self.errors: list[str] = []
        self.connections = 0

    def take(self) -> list[Message]:
        """What came since the last time."""
        errors, self.errors = self.errors, []
        assert not errors, errors
        seen, self.seen = self.seen, []
        return seen

    def clear(self) -> None:
        """Forget what came."""
        self.seen, self.errors = [], []

    async def http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of HTTP/1.1, read by the strict reader."""
        while True:
            try:
                message = await read_request(reader)
            except Truncated:
                return
            except WireError as error:
                self.errors.append(str(error))
                return
            if message is None:
                return
            message.connection = self.connections
            self.seen.append(message)
            if message.target == b"/hold":
                await reader.read()
                return
            extra = b"set-cookie: a=1\r\nset-cookie: b=2\r\n" if message.target.endswith(b"/crumbs") else b""
            body = message.body or ANSWER
            if message.target.startswith(b"/bytes/"):
                body = b"x" * int(message.target[7:])
            if message.trailers:
                chunk = b"%x\r\n%b\r\n0\r\nx-checksum: abc\r\n\r\n" % (len(body), body)
                writer.write(b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%b" % (extra, chunk))
            else:
                head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (extra, len(body))
                writer.write(head + (b"" if message.method == b"HEAD" else body))
            await writer.drain()

    async def http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of HTTP/2, by the h2 library. Answers are small enough for every window but /bytes/N's."""
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        requests: dict[int, Message] = {}
        waiting: dict[int, bytes] = {}
        writer.write(connection.data_to_send())
        while data := await reader.read(1 << 16):
            try:
                events = connection.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                self.errors.append(repr(error))
                return
            for event in events:
                self._note(connection, event, requests, waiting)
            for stream in list(waiting):
                _pour(connection, stream, waiting)
            writer.write(connection.data_to_send())
            await writer.drain()

    def _note(
        self,
        connection: h2.connection.H2Connection,
        event: h2.events.Event,
        requests: dict[int, Message],
        waiting: dict[int, bytes],
    ) -> None:
        if isinstance(event, h2.events.RequestReceived):
            message = requests[event.stream_id] = Message(version=b"HTTP/2")
            for name, value in event.headers:
                if name == b":method":
                    message.method = value
                elif name == b":path":
                    message.target = value
                message.fields.append((name, value))
        elif isinstance(event, h2.events.DataReceived):
            requests[event.stream_id].body += event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            requests[event.stream_id].trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            waiting.pop(event.stream_id, None)
            requests.pop(event.stream_id, None)
        elif isinstance(event, h2.events.StreamEnded):
            message = requests.pop(event.stream_id)
            self.seen.append(message)
            more = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")] if message.target.endswith(b"/crumbs") else []
            connection.send_headers(event.stream_id, [(b":status", b"200"), *more])
            body = message.body or ANSWER
            if message.target.startswith(b"/h2/bytes/"):
                body = b"x" * int(message.target[10:])
            waiting[event.stream_id] = b"" if message.method == b"HEAD" else body
            if message.trailers:
                waiting.pop(event.stream_id)
                connection.send_data(event.stream_id, body)
                connection.send_headers(event.stream_id, [(b"x-checksum", b"abc")], end_stream=True)


def _pour(connection: h2.connection.H2Connection, stream: int, waiting: dict[int, bytes]) -> None:
    body = waiting[stream]
    while body:
        room = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size, len(body))
        if room <= 0:
            waiting[stream] = body
            return
        connection.send_data(stream, body[:room])
        body = body[room:]
    del waiting[stream]
    connection.end_stream(stream)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.contextmanager
def running(*apps: tuple[App, Handler]) -> Iterator[None]:
    """Serve the apps from a thread of its own. Their connections outlive a test."""
    started = threading.Event()
    ended: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def accept(app: App, handler: Handler, tasks: set[asyncio.Task[None]]) -> Any:
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            app.connections += 1
            leaks.OWNED_SOCKETS.add(f"socket:[{os.fstat(writer.get_extra_info('socket').fileno()).st_ino}]")

            async def run() -> None:
                try:
                    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                        await handler(reader, writer)
                finally:
                    writer.close()

            task = asyncio.create_task(run())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return serve

    async def main() -> None:
        event = asyncio.Event()
        ended.append((asyncio.get_running_loop(), event))
        tasks: set[asyncio.Task[None]] = set()
        servers = []
        for app, handler in apps:
            server = await asyncio.start_server(accept(app, handler, tasks), "127.0.0.1", 0, limit=LIMIT)
            app.port = server.sockets[0].getsockname()[1]
            servers.append(server)
        started.set()
        await event.wait()
        for server in servers:
            server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="apps", daemon=True)
    thread.start()
    assert started.wait(5), "the apps did not start"
    try:
        yield
    finally:
        loop, event = ended[0]
        loop.call_soon_threadsafe(event.set)
        thread.join(5)
