"""The sidecar's HTTP/2 codec fed with bytes, and what it understood of them as plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.config.http2 import Http2Options
from proxy.http.h2.client import ClientConnection
from proxy.http.h2.connection import Connection
from proxy.http.h2.frames import ConnectionFailed
from proxy.http.h2.server import ServerConnection
from proxy.http.h2.stream import OPEN, Stream
from proxy.http.heads import RequestHead, RequestMessage, ResponseHead, ResponseMessage

MAX_SIZE = 16_384
MAX_COUNT = 100
STREAMS = 32
OPTIONS = Http2Options(max_concurrent_streams=STREAMS, max_consecutive_inbound_frames_with_empty_payload=8)
NOW = 1000.0

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


@dataclass(slots=True)
class Seen:
    """One stream as far as it was understood. `reset` is the error code, whoever gave it; -1: none."""

    head: Any = None
    interim: list[Any] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    done: bool = False
    reset: int = OPEN
    broken: bool = False


class Driven:
    """A codec that is fed. Nothing is answered and no stream's window is given back, so that the same bytes always find
    the same state, however they are cut."""

    def __init__(self, codec: Connection) -> None:
        self.codec = codec
        self.streams: dict[int, Seen] = {}
        self.failed: int | None = None
        self.received = 0
        self.sent = len(codec.take())

    def feed(self, data: bytes) -> None:
        """Receive, unless the connection has failed already."""
        if self.failed is not None or not data:
            return
        self.received += len(data)
        try:
            self.codec.receive(data, NOW)
        except ConnectionFailed as error:
            self.failed = error.code
        for stream in self.codec.ready:
            stream.queued = False
            self._note(stream)
        self.codec.ready = []
        self.sent += len(self.codec.take())
        self.codec.go_on()

    def feed_split(self, data: bytes, cuts: Iterable[int]) -> None:
        """Receive in the segments that `cuts` makes."""
        start = 0
        for cut in [*sorted(cuts), len(data)]:
            self.feed(data[start:cut])
            start = max(start, cut)

    def _note(self, stream: Stream) -> None:
        seen = self.streams.setdefault(stream.id, Seen())
        seen.reset = stream.reset
        seen.broken = bool(stream.broken)
        seen.interim += [_head(head) for head in stream.interim]
        stream.interim = []
        message = stream.message
        request = stream.request
        if request is not None and seen.head is None:
            seen.head = _head(request.head)
        if message is None:
            return
        if isinstance(message, ResponseMessage | RequestMessage) and seen.head is None:
            seen.head = _head(message.head)
        seen.body += b"".join(message.body)
        message.body = []
        seen.trailers = list(message.trailers)
        seen.done = message.done

    def understood(self) -> dict[int, Seen]:
        """What is the same however the bytes are cut: of a stream that was reset only that it was."""
        return {
            number: Seen(reset=seen.reset, broken=seen.broken) if seen.reset != OPEN else seen
            for number, seen in self.streams.items()
        }

    def check(self) -> None:
        """What holds whatever came. Raises AssertionError."""
        codec = self.codec
        assert len(codec.streams) <= STREAMS
        assert sum(len(seen.body) for seen in self.streams.values()) <= self.received
        assert self.sent <= 4 * self.received + 1024, f"{self.sent} octets sent for {self.received}"
        for seen in self.streams.values():
            for head in (seen.head, *seen.interim):
                if head is not None:
                    _check_fields(head["headers"])
                    assert len(head["headers"]) <= MAX_COUNT
            _check_fields(seen.trailers)


def server() -> Driven:
    """The server's side."""
    return Driven(ServerConnection(OPTIONS, MAX_SIZE, MAX_COUNT, True))


def client(methods: Sequence[bytes] = (b"GET", b"POST", b"HEAD", b"GET")) -> Driven:
    """The client's side behind requests with these methods on streams 1, 3, ..., of which POST goes on."""
    codec = ClientConnection(OPTIONS, MAX_SIZE, MAX_COUNT)
    for method in methods:
        stream = codec.open(method, b"", NOW)
        fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")]
        codec.request(stream, fields, [], method != b"POST")
    return Driven(codec)


def _head(head: RequestHead | ResponseHead) -> dict[str, Any]:
    if isinstance(head, RequestHead):
        lifted = ("method", "target", "authority", "length", "te_trailers", "upgrade", "request_id", "traceparent")
    else:
        lifted = ("status", "length", "server")
    return {name: getattr(head, name) for name in lifted} | {"headers": list(head.headers)}


def _check_fields(fields: list[tuple[bytes, bytes]]) -> None:
    for name, value in fields:
        assert _NAME.fullmatch(name), name
        assert _VALUE.fullmatch(value), value
