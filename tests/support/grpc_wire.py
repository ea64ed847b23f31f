"""HTTP/2 by hand, over `h2`: a blocking client that shows every part of an answer, and an app that answers through a
plain function or misbehaves as its path says. What `h2` refuses to read, no sidecar should have sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tests.support import leaks

Headers = list[tuple[str, str]]
CHUNK = 16384
WINDOW = 16 * 1024 * 1024
"""Bytes that a Client takes without having read them."""


@dataclass
class Message:
    """A request or an answer; `headers` without pseudo-header fields, which are in `pseudo`, `trailers` None if there
    are none. Of an answer also: interim statuses, the code of a reset, and whether its one HEADERS frame ended it."""

    pseudo: dict[str, str] = field(default_factory=dict)
    headers: Headers = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Headers | None = None
    interim: list[int] = field(default_factory=list)
    reset: int | None = None
    headers_only: bool = False

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.pseudo[":status"])

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        """The first of them."""
        return next(iter(self.all(name)), None)


def message(headers: Any) -> Message:
    """From the headers of an h2 event."""
    pseudo = {name: value for name, value in headers if name.startswith(":")}
    return Message(pseudo, [(name, value) for name, value in headers if not name.startswith(":")])


def grpc_request(authority: str, path: str, **fields: str) -> Headers:
    """The head of a gRPC call; `fields` with _ for -."""
    pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", authority), (":path", path)]
    more = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return [*pseudo, ("content-type", "application/grpc"), ("te", "trailers"), *more]


def frame(data: bytes) -> bytes:
    """A gRPC message as it stands in a body: not compressed, its length in front."""
    return b"\0" + len(data).to_bytes(4, "big") + data


class Client:
    """One HTTP/2 connection with prior knowledge; blocking. `goaway`: the peer's last words."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 15)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        # Envoy 1.40 now and then resets a stream whose answer is larger than its client's window.
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW)
        self._answers: dict[int, Message] = {}
        self._ended: set[int] = set()
        self._settled = False
        self.goaway: h2.events.ConnectionTerminated | None = None
        self._flush()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, headers: Headers, *parts: bytes, trailers: Sequence[tuple[str, str]] = (), end: bool = True) -> int:
        """Begin a request; its stream. Waits for windows while there is more to send than they allow."""
        stream = self._h2.get_next_available_stream_id()
        alone = end and not parts and not trailers
        self._answers[stream] = Message()
        self._h2.send_headers(stream, headers, end_stream=alone)
        self.data(stream, *parts)
        if trailers:
            self._h2.send_headers(stream, list(trailers), end_stream=True)
        elif end and not alone:
            self._h2.end_stream(stream)
        self._flush()
        return stream

    def data(self, stream: int, *parts: bytes) -> None:
        """DATA on an open stream."""
        for part in parts:
            view = memoryview(part)
            while view and stream not in self._ended:
                room = min(self._h2.local_flow_control_window(stream), CHUNK)
                if room:
                    self._h2.send_data(stream, bytes(view[:room]))
                    view = view[room:]
                self._flush()
                if not room:
                    self._read()

    def end(self, stream: int) -> None:
        """END_STREAM."""
        self._h2.end_stream(stream)
        self._flush()

    def cancel(self, stream: int) -> None:
        """RST_STREAM."""
        self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def answer(self, stream: int) -> Message:
        """What came on a stream, once it has ended."""
        while stream not in self._ended:
            self._read()
        return self._answers[stream]

    def until(self, stream: int, condition: Callable[[Message], object]) -> Message:
        """What came so far, once `condition` holds."""
        while not condition(self._answers[stream]):
            assert stream not in self._ended, self._answers[stream]
            self._read()
        return self._answers[stream]

    def ask(self, headers: Headers, *parts: bytes, trailers: Sequence[tuple[str, str]] = ()) -> Message:
        """send() and answer()."""
        return self.answer(self.send(headers, *parts, trailers=trailers))

    def connect_protocol(self) -> bool:
        """Whether the peer takes extended CONNECT (RFC 8441 §3), as its first SETTINGS say."""
        while not self._settled:
            self._read()
        return bool(self._h2.remote_settings.enable_connect_protocol)

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def _read(self) -> None:
        data = self._sock.recv(65536)
        assert data, f"the connection ended; goaway: {self.goaway}"
        for event in self._h2.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._settled = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self._answers[event.stream_id].interim.append(message(event.headers).status)
        elif isinstance(event, h2.events.ResponseReceived):
            head = message(event.headers)
            found = self._answers[event.stream_id]
            found.pseudo, found.headers, found.headers_only = head.pseudo, head.headers, event.stream_ended is not None
        elif isinstance(event, h2.events.DataReceived):
            self._answers[event.stream_id].body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self._answers[event.stream_id].trailers = message(event.headers).headers
        elif isinstance(event, h2.events.StreamReset):
            self._answers[event.stream_id].reset = event.error_code
            self._ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._ended.add(event.stream_id)


@dataclass
class Reply:
    """What an app answers. `length`: whether it says content-length; a `body` of None says no content, not even its
    absence; `cut`: the answer breaks off behind the body."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes | None = b""
    trailers: Headers = field(default_factory=list)
    interim: list[tuple[int, Headers]] = field(default_factory=list)
    length: bool = True
    cut: bool = False


Handler = Callable[[Message], Reply]


class H2App(asyncio.Protocol):
    """One connection of an app that answers whole requests through `handler`, and opens every extended CONNECT as an
    echo. Paths that begin with one of these names misbehave, the first time that this path is asked for:

    - /refuse/SECONDS: RST_STREAM(REFUSED_STREAM) after so long
    - /goaway: GOAWAY that does not cover the request, then the end of the connection
    - /silent: nothing, ever (every time)
    """

    def __init__(
        self,
        handler: Handler,
        seen: list[Message],
        misbehaved: Counter[str],
        transports: set[asyncio.Transport],
    ) -> None:
        self._transports = transports
        self._handler = handler
        self._seen = seen
        self._misbehaved = misbehaved
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=True)
        )
        self._h2.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
        )
        self._requests: dict[int, Message] = {}
        self._tunnels: set[int] = set()
        self._unsent: dict[int, tuple[memoryview, Headers]] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._transports.add(transport)
        own(transport)
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._flush()
            self._transport.close()
            raise
        for event in events:
            self._take(event)
        self._flush()

    def _flush(self) -> None:
        self._transport.write(self._h2.data_to_send())

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._requests[event.stream_id] = request = message(event.headers)
            if ":protocol" in request.pseudo:
                self._seen.append(request)
                self._tunnels.add(event.stream_id)
                self._h2.send_headers(event.stream_id, [(":status", "200")])
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self._tunnels:
                self._h2.send_data(event.stream_id, event.data)  # tests keep below the first window
            else:
                self._requests[event.stream_id].body += event.data
        elif isinstance(event, h2.events.TrailersReceived):
            self._requests[event.stream_id].trailers = message(event.headers).headers
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in self._tunnels:
                self._h2.end_stream(event.stream_id)
            else:
                self._request(event.stream_id, self._requests.pop(event.stream_id))
        elif isinstance(event, h2.events.StreamReset):
            self._requests.pop(event.stream_id, None)
            self._unsent.pop(event.stream_id, None)
        elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
            for stream in tuple(self._unsent):
                self._send(stream)

    def _request(self, stream: int, request: Message) -> None:
        self._seen.append(request)
        path = request.pseudo[":path"]
        _, what, *rest = path.split("/")
        if what == "silent":
            return
        if what in ("refuse", "goaway"):
            self._misbehaved[path] += 1
            if self._misbehaved[path] == 1:
                if what == "goaway":
                    self._h2.close_connection(last_stream_id=stream - 2 if stream > 1 else 0)
                    self._flush()
                    self._transport.close()
                else:
                    asyncio.get_running_loop().call_later(float(rest[0]), self._refuse, stream)
                return
        reply = self._handler(request)
        for status, headers in reply.interim:
            self._h2.send_headers(stream, [(":status", str(status)), *headers])
        headers = [(":status", str(reply.status)), *reply.headers]
        if reply.length and reply.body is not None:
            headers.append(("content-length", str(len(reply.body))))
        body = b"" if request.pseudo[":method"] == "HEAD" or reply.body is None else reply.body
        if reply.cut:
            self._h2.send_headers(stream, headers)
            self._h2.send_data(stream, body)
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
            return
        self._h2.send_headers(stream, headers, end_stream=not body and not reply.trailers)
        if body or reply.trailers:
            self._unsent[stream] = (memoryview(body), reply.trailers)
            self._send(stream)

    def _refuse(self, stream: int) -> None:
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        self._flush()

    def _send(self, stream: int) -> None:
        body, trailers = self._unsent.pop(stream)
        while body and (room := min(self._h2.local_flow_control_window(stream), CHUNK)) > 0:
            self._h2.send_data(stream, bytes(body[:room]), end_stream=len(body) <= room and not trailers)
            body = body[room:]
        if body:
            self._unsent[stream] = (body, trailers)
        elif trailers:
            self._h2.send_headers(stream, trailers, end_stream=True)


def own(transport: Any) -> None:
    """A connection of an app that lives longer than one test is no leak of the test."""
    leaks.OWNED_SOCKETS.add(f"socket:[{os.fstat(transport.get_extra_info('socket').fileno()).st_ino}]")


@dataclass
class App:
    """A running one: its port, and every request so far."""

    port: int
    seen: list[Message]

    def last(self, path: str) -> Message:
        """The last request for a path."""
        return next(one for one in reversed(self.seen) if one.pseudo.get(":path") == path)

    def count(self, path: str) -> int:
        """How many came for a path."""
        return sum(one.pseudo.get(":path") == path for one in self.seen)


@contextlib.contextmanager
def h2_app(handler: Handler) -> Iterator[App]:
    """An H2App with an event loop and a thread of its own, for tests that drive processes and wait."""
    started, ended = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    ports: list[int] = []
    seen: list[Message] = []
    misbehaved: Counter[str] = Counter()
    transports: set[asyncio.Transport] = set()

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        server = await loops[0].create_server(
            lambda: H2App(handler, seen, misbehaved, transports), "127.0.0.1", 0, backlog=1024
        )
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await ended.wait()
        server.close()
        for transport in tuple(transports):
            transport.abort()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="app", daemon=True)
    thread.start()
    assert started.wait(5), "the app did not start"
    try:
        yield App(ports[0], seen)
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(10)
