"""A browser's side of gRPC-Web by hand, over HTTP/1.1 or HTTP/2, with binary or base64 bodies (gRPC's PROTOCOL-WEB.md)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support import grpc_h1, grpc_wire
from tests.support.grpc_wire import Headers, Message, frame

TYPES = {False: "application/grpc-web+proto", True: "application/grpc-web-text"}
TRAILERS = 0x80


@dataclass
class Answer:
    """A response: `messages` and `trailers` are its body's frames; `trailers` is None without such a frame."""

    http: Message
    messages: list[bytes]
    trailers: Headers | None

    @property
    def code(self) -> int:
        """grpc-status, of the trailers, or of the head when there are none."""
        return int(self.said("grpc-status") or -1)

    @property
    def text(self) -> str:
        """grpc-message, as it stands."""
        return self.said("grpc-message") or ""

    def said(self, name: str) -> str | None:
        """A field of the trailers, or of the head when there are none."""
        return dict(self.trailers if self.trailers is not None else self.http.headers).get(name)


@dataclass(frozen=True)
class Web:
    """A client to 127.0.0.1:port; `text`: base64 both ways. Each call has a connection of its own."""

    port: int
    http2: bool
    text: bool
    origin: str = "https://ok.test"

    @property
    def headers(self) -> Headers:
        """What every call sends."""
        kind = TYPES[self.text]
        return [("content-type", kind), ("accept", kind), ("x-grpc-web", "1"), ("origin", self.origin)]

    def call(self, host: str, path: str, *messages: bytes, metadata: Sequence[tuple[str, str]] = ()) -> Answer:
        """The messages in one body, and what is answered."""
        body = b"".join([frame(message) for message in messages])
        if self.text:
            body = base64.b64encode(body)
        return self.read(self.ask("POST", host, path, [*self.headers, *metadata], body))

    def ask(self, method: str, host: str, path: str, headers: Headers, body: bytes | Sequence[bytes] | None) -> Message:
        """Any request; a sequence is sent piece by piece, without a length."""
        if not self.http2:
            with grpc_h1.Client(self.port) as client:
                return client.ask(method, host, path, headers, body)
        pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
        with grpc_wire.Client(self.port) as client2:
            if isinstance(body, bytes):
                return client2.ask([*pseudo, *headers, ("content-length", str(len(body)))], body)
            return client2.ask([*pseudo, *headers], *(body or ()))

    def read(self, message: Message) -> Answer:
        """What a response means."""
        body = unpadded(bytes(message.body)) if self.text else bytes(message.body)
        assert message.trailers is None
        messages: list[bytes] = []
        trailers: Headers | None = None
        while body:
            assert trailers is None, "the trailers are the last frame"
            kind, size = body[0], int.from_bytes(body[1:5], "big")
            content, body = body[5 : 5 + size], body[5 + size :]
            assert len(content) == size
            if kind == TRAILERS:
                trailers = [(name, value) for name, _, value in map(split, content.decode().splitlines())]
            else:
                assert kind == 0
                messages.append(content)
        return Answer(message, messages, trailers)


def split(line: str) -> tuple[str, str, str]:
    """A field's line."""
    name, colon, value = line.partition(":")
    assert name == name.lower()
    return name, colon, value.strip()


def unpadded(text: bytes) -> bytes:
    """What base64 means that was padded wherever it was flushed."""
    groups = [text[at : at + 4] for at in range(0, len(text), 4)]
    return b"".join([base64.b64decode(group, validate=True) for group in groups])
