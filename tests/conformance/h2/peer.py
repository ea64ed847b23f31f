"""One end of an HTTP/2 connection on a blocking socket: sends what it is told, and says what came of it."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass, field

import hpack

from tests.conformance.h2 import frames
from tests.conformance.h2.frames import Frame, code_name

SECONDS = 3.0
"""How long a verdict may take. Only what is wrong ever waits this long."""


class Silence(AssertionError):
    """Nothing more came in time; the text has what did."""


@dataclass(slots=True)
class Answer:
    """What came on one stream. `reset` is its error code, when it was reset."""

    status: int = 0
    fields: list[frames.Field] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    body: bytes = b""
    trailers: list[frames.Field] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    never_indexed: list[bytes] = field(default_factory=list)
    """The names of the fields that came as never-indexed literals."""

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field."""
        return [value for key, value in self.fields if key == name]


class Peer:
    """Reads all frames, acknowledges SETTINGS (unless told not to), and keeps what came by stream."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.frames: list[Frame] = []
        self.goaways: list[Frame] = []
        self.settings: dict[int, int] = {}
        self.streams: dict[int, Answer] = {}
        self.closed = False
        """Whether the other end has closed."""
        self.acknowledge = True
        self.window = 65_535
        """What the other end may still send us on the connection."""
        self._buffer = bytearray()
        self._decoder = hpack.Decoder()
        self._fragment = b""
        self._last_block = False

    def send(self, *sent: bytes) -> None:
        """Send bytes in one piece. That the other end has closed shows when reading."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(b"".join(sent))

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    # ---- what came

    def read(self, until: float) -> Frame | None:
        """The next frame; None when the other end has closed. Raises Silence at the time `until`."""
        while (found := frames.parse(self._buffer)) is None:
            if self.closed:
                return None
            self.sock.settimeout(max(0.001, until - time.monotonic()))
            try:
                more = self.sock.recv(1 << 18)
            except TimeoutError:
                raise Silence(f"waited in vain; got {', '.join(map(str, self.frames)) or 'nothing'}") from None
            except ConnectionError:
                more = b""
            self.closed = not more
            self._buffer += more
        self.frames.append(found)
        self._note(found)
        return found

    def _note(self, found: Frame) -> None:
        stream = self.streams.get(found.stream)
        if stream is None:
            stream = self.streams[found.stream] = Answer()
        payload = found.payload
        if found.flags & frames.PADDED and found.kind in (frames.DATA, frames.HEADERS):
            payload = payload[1 : len(payload) - payload[0]]
        if found.kind == frames.SETTINGS and not found.flags & frames.ACK:
            self.settings.update(found.settings)
            if self.acknowledge:
                self.send(frames.SETTINGS_ACK)
        elif found.kind == frames.DATA:
            stream.body += payload
            self.window -= len(found.payload)
        elif found.kind in (frames.HEADERS, frames.CONTINUATION):
            self._fragment += payload[5:] if found.flags & frames.PRIORITISED else payload
            if found.flags & frames.END_HEADERS:
                self._headers(stream)
        elif found.kind == frames.RST_STREAM:
            stream.reset = found.code
        elif found.kind == frames.GOAWAY:
            self.goaways.append(found)
        if found.kind == frames.DATA:
            stream.ended = bool(found.flags & frames.END_STREAM)
        elif found.kind == frames.HEADERS:
            self._last_block = bool(found.flags & frames.END_STREAM)
        if found.kind in (frames.HEADERS, frames.CONTINUATION) and found.flags & frames.END_HEADERS:
            stream.ended = self._last_block

    def _headers(self, stream: Answer) -> None:
        fields: list[frames.Field] = []
        decoded = self._decoder.decode(self._fragment, raw=True)
        self._fragment = b""
        for one in decoded:
            fields.append((bytes(one[0]), bytes(one[1])))
            if not one.indexable:
                stream.never_indexed.append(bytes(one[0]))
        if stream.fields:
            stream.trailers = fields
            return
        status = next((int(value) for name, value in fields if name == b":status"), 0)
        if 100 <= status < 200:
            stream.interim.append(status)
            return
        stream.status, stream.fields = status, fields

    # ---- verdicts

    def error(self, seconds: float = SECONDS) -> int | None:
        """The connection's end: the code of its GOAWAY, or None when it closed without one. Raises Silence."""
        until = time.monotonic() + seconds
        while self.read(until) is not None:
            pass
        return self.goaways[-1].code if self.goaways else None

    def answer(self, stream: int, seconds: float = SECONDS) -> Answer:
        """All of a stream up to its end or reset. Raises AssertionError when the connection ends first, and Silence."""
        until = time.monotonic() + seconds
        while True:
            found = self.streams.get(stream)
            if found is not None and (found.ended or found.reset is not None):
                return found
            assert self.read(until) is not None, f"closed; got {', '.join(map(str, self.frames))}"

    def head(self, stream: int, seconds: float = SECONDS) -> Answer:
        """A stream as soon as it has a head (or is reset)."""
        until = time.monotonic() + seconds
        while True:
            found = self.streams.get(stream)
            if found is not None and (found.fields or found.reset is not None):
                return found
            assert self.read(until) is not None, f"closed; got {', '.join(map(str, self.frames))}"

    def expect(self, kind: int, stream: int | None = None, flags: int = 0, seconds: float = SECONDS) -> Frame:
        """The next frame of a kind, with at least these flags. Raises AssertionError when the connection ends first."""
        until = time.monotonic() + seconds
        while True:
            found = self.read(until)
            assert found is not None, f"closed before {frames.NAMES[kind]}; got {', '.join(map(str, self.frames))}"
            if found.kind == kind and found.flags & flags == flags and stream in (None, found.stream):
                return found

    def sync(self, opaque: bytes = b"are you?") -> None:
        """A PING there and back: what was sent before has been read."""
        self.send(frames.ping(opaque))
        while self.expect(frames.PING, flags=frames.ACK).payload != opaque:
            pass

    def got(self, kind: int, stream: int | None = None) -> list[Frame]:
        """The frames of a kind so far."""
        return [one for one in self.frames if one.kind == kind and stream in (None, one.stream)]


class Client(Peer):
    """The client's end, behind its preface and both SETTINGS."""

    def __init__(self, sock: socket.socket, *pairs: tuple[int, int], window: int = 0) -> None:
        super().__init__(sock)
        self.send(frames.PREFACE, frames.settings(*pairs), frames.window_update(0, window) if window else b"")
        self.expect(frames.SETTINGS)

    def ask(self, stream: int = 1, path: bytes = b"/", *more: frames.Field) -> Answer:
        """A GET and its answer."""
        self.send(frames.headers(stream, frames.request(b"GET", path, *more)))
        return self.answer(stream)


class Server(Peer):
    """The server's end of a connection that the proxy has opened, behind its preface."""

    def __init__(self, sock: socket.socket, first: bytes | None = None) -> None:
        """`first` is what the server says first: its SETTINGS, empty unless given."""
        super().__init__(sock)
        sock.settimeout(SECONDS)
        preface = b""
        while len(preface) < len(frames.PREFACE):
            more = sock.recv(len(frames.PREFACE) - len(preface))
            assert more, f"closed after {preface!r}"
            preface += more
        assert preface == frames.PREFACE
        self.send(frames.settings() if first is None else first)

    def request(self, stream: int | None = None, whole: bool = False) -> int:
        """Wait for a request's head (with `whole`, for its end): the next one, or that of `stream`. Its stream's id."""
        found = self.expect(frames.HEADERS, stream)
        until = time.monotonic() + SECONDS
        while not self.streams[found.stream].fields or (whole and not self.streams[found.stream].ended):
            assert self.read(until) is not None, "closed inside a request"
        return found.stream

    def respond(self, stream: int, body: bytes = b"", *more: frames.Field) -> None:
        """A whole answer with 200."""
        self.send(
            frames.headers(stream, frames.response(b"200", *more), frames.END_HEADERS | (0 if body else 1)),
            frames.data(stream, body, frames.END_STREAM) if body else b"",
        )


def open_socket(port: int) -> socket.socket:
    """A connection to 127.0.0.1:port."""
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def describe(codes: tuple[int | None, ...]) -> str:
    """For messages of tests."""
    return " or ".join(code_name(code) for code in codes)
