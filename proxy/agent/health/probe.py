"""One endpoint's health check: the connection to it, and one question at a time.

A Probe is used by one task. `ask` ends with the endpoint well, or raises: Ill if it says so itself, OSError (with
ConnectionError, TimeoutError, ssl.SSLError) if there is no telling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue, UInt32Value

from proxy.config.health_check import GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from proxy.config.http2 import HTTP2_DEFAULTS
from proxy.http import grpc
from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.response import ResponseReader
from proxy.http.h2.client import ClientConnection
from proxy.http.h2.frames import CANCEL, ConnectionFailed
from proxy.http.h2.stream import OPEN
from proxy.http.heads import NO_UPGRADE, ResponseMessage
from proxy.worker import tls
from proxy.worker.peer import Peer, PeerError

_READ = 64 * 1024
_MAX_HEAD, _MAX_FIELDS = 60 * 1024, 100
_MAX_BODY = 64 * 1024
"""Octets of an answer that are looked at, where they are."""
_AGENT = "Pillion/HC"
_SERVING = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus


class Ill(Exception):
    """The endpoint answered, and not as it should. `retriable`: that may pass (retriable_statuses)."""

    def __init__(self, text: str, retriable: bool = False) -> None:
        super().__init__(text)
        self.retriable = retriable


@dataclass(frozen=True, slots=True)
class Transport:
    """How the connection is secured: as the cluster's own are."""

    context: tls.Context
    sni: str
    verify: Callable[[Peer], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked."""

    host: str
    port: int
    authority: str
    transport: Transport | None = None


class Probe:
    """The base: one connection, opened when it is needed."""

    def __init__(self, target: Target, config: HealthCheck) -> None:
        self.target = target
        self._config = config
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self) -> None:
        """Ask once, within the timeout. Raises Ill or OSError."""
        kept = False
        try:
            async with asyncio.timeout(self._config.timeout):
                if self._writer is None or self._reader is None or self._reader.at_eof() or self._writer.is_closing():
                    self.close()
                    await self._open()
                kept = await self._ask()
        except (ProtocolError, ConnectionFailed, PeerError) as error:
            raise ConnectionError(str(error)) from None
        except EOFError:
            raise ConnectionError("closed by the peer") from None
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._config.timeout:g}s") from None
        finally:
            if not kept or not self._config.reuse_connection:
                self.close()

    async def _ask(self) -> bool:
        """Ask on the open connection; whether that can be used again."""
        raise NotImplementedError

    async def _open(self) -> None:
        target = self.target
        secured = target.transport
        if secured is None:
            self._reader, self._writer = await asyncio.open_connection(target.host, target.port)
            return
        self._reader, self._writer = await asyncio.open_connection(
            target.host, target.port, ssl=secured.context, server_hostname=secured.sni
        )
        secured.verify(Peer(self._writer.get_extra_info("ssl_object"), secured.context.verifies))

    def close(self) -> None:
        """Close the connection, if there is one."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    def _write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def _read(self) -> bytes:
        """Some octets; none at the end."""
        assert self._reader is not None
        return await self._reader.read(_READ)


class TcpProbe(Probe):
    """Connects; or sends something and waits for something."""

    async def _ask(self) -> bool:
        check = self._config.check
        assert isinstance(check, TcpCheck)
        if not check.receive:
            return False  # Envoy, too: where nothing is expected, being connected is all
        if check.send:
            self._write(check.send)
        seen = b""
        while not _matches(seen, check.receive):
            data = await self._read()
            if not data:
                raise EOFError
            seen += data
            if len(seen) > _MAX_BODY:
                raise ConnectionError(f"not what is expected in the first {_MAX_BODY} octets")
        return True


def _matches(seen: bytes, expected: tuple[bytes, ...]) -> bool:
    """Whether all that is expected is there, in its order."""
    at = 0
    for part in expected:
        found = seen.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


class Http1Probe(Probe):
    """A request of HTTP/1.1."""

    async def _ask(self) -> bool:
        check = self._config.check
        assert isinstance(check, HttpCheck)
        lines = [f"{check.method} {check.path} HTTP/1.1", f"host: {self.target.authority}"]
        lines += [f"{name}: {value}" for name, value in _with_agent(check.headers)]
        if check.method in ("POST", "PUT", "PATCH"):
            lines.append("content-length: 0")
        self._write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        reader = ResponseReader(_MAX_HEAD, _MAX_FIELDS)
        reader.expect(check.method.encode(), NO_UPGRADE)
        while reader.message is None or not reader.message.done:
            data = await self._read()
            if not data and not reader.end():
                raise EOFError
            if data:
                reader.feed(data)
            reader.interim.clear()
            if reader.message is not None:
                reader.message.body.clear()
        _judge(reader.message, check)
        return reader.message.head.keep_alive and not reader.excess


class Http2Probe(Probe):
    """A request of HTTP/2, and the base of gRPC's."""

    def __init__(self, target: Target, config: HealthCheck) -> None:
        super().__init__(target, config)
        self._codec: ClientConnection | None = None

    async def _open(self) -> None:
        await super()._open()
        if self.target.transport is not None:
            assert self._writer is not None
            chosen = self._writer.get_extra_info("ssl_object").selected_alpn_protocol()
            if chosen != "h2":
                raise PeerError("alpn", f"does not speak HTTP/2: ALPN chose {chosen or 'nothing'}")
        self._codec = ClientConnection(HTTP2_DEFAULTS, _MAX_HEAD, _MAX_FIELDS)

    async def _ask(self) -> bool:
        check = self._config.check
        assert isinstance(check, HttpCheck)
        message, _ = await self._exchange(check.method, check.path, _with_agent(check.headers), b"")
        _judge(message, check)
        return True

    async def _exchange(
        self, method: str, path: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[ResponseMessage, bytes]:
        """The response and its body, as far as it is looked at."""
        codec = self._codec
        assert codec is not None
        stream = codec.open(method.encode(), NO_UPGRADE, monotonic())
        scheme = b"https" if self.target.transport is not None else b"http"
        fields = [
            (b":method", method.encode()),
            (b":scheme", scheme),
            (b":path", path.encode()),
            (b":authority", self.target.authority.encode()),
            *((name.encode(), value.encode()) for name, value in headers),
        ]
        codec.request(stream, fields, [], not body)
        if body:
            codec.send(stream, [body], True, [], [])
        content = b""
        while True:
            self._flush(codec)
            message = stream.message
            if message is not None:
                assert isinstance(message, ResponseMessage)
                content += b"".join(message.body)
                message.body.clear()
                if message.done:
                    break
                if len(content) > _MAX_BODY:
                    codec.reset(stream, CANCEL)
                    self._flush(codec)
                    break
            if stream.broken:
                raise ConnectionError(stream.broken)
            if stream.reset != OPEN:
                raise ConnectionError("the stream was reset")
            data = await self._read()
            if not data:
                raise EOFError
            codec.receive(data, monotonic())
        if codec.going_away:
            self.close()
        return message, content

    def _flush(self, codec: ClientConnection) -> None:
        """Write all that there is; give back the windows of what was read."""
        ready, codec.ready = codec.ready, []
        for stream in ready:
            stream.queued = False
            codec.give_back(stream)
        codec.drained.clear()
        while codec.out:
            self._write(codec.take())
            codec.go_on()


class GrpcProbe(Http2Probe):
    """A call of grpc.health.v1.Health/Check."""

    async def _ask(self) -> bool:
        check = self._config.check
        assert isinstance(check, GrpcCheck)
        # Of one field with the number 1, as these: HealthCheckRequest is a StringValue, HealthCheckResponse a number.
        request = StringValue(value=check.service).SerializeToString()
        headers = (
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *_with_agent(check.headers),
        )
        framed = b"\0" + len(request).to_bytes(4, "big") + request
        message, content = await self._exchange("POST", "/grpc.health.v1.Health/Check", headers, framed)
        if message.head.status != 200:
            raise Ill(f"status {message.head.status}")
        code = grpc.status(message)
        if code != b"0":
            raise Ill(f"grpc-status {code.decode('latin-1') or 'missing'}")
        try:
            if content[:1] != b"\0" or int.from_bytes(content[1:5], "big") != len(content) - 5:
                raise DecodeError
            serving = UInt32Value.FromString(content[5:]).value
        except DecodeError:
            raise Ill("the answer is no HealthCheckResponse") from None
        if serving != _SERVING:
            raise Ill({0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}.get(serving, str(serving)))
        return True


def probe(target: Target, config: HealthCheck) -> Probe:
    """The Probe for a kind of check."""
    check = config.check
    if isinstance(check, TcpCheck):
        return TcpProbe(target, config)
    if isinstance(check, GrpcCheck):
        return GrpcProbe(target, config)
    return Http2Probe(target, config) if check.http2 else Http1Probe(target, config)


def _with_agent(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    if any(name == "user-agent" for name, _ in headers):
        return headers
    return (("user-agent", _AGENT), *headers)


def _judge(message: ResponseMessage, check: HttpCheck) -> None:
    status = message.head.status
    if any(first <= status < end for first, end in check.expected_statuses):
        return
    raise Ill(f"status {status}", any(first <= status < end for first, end in check.retriable_statuses))
