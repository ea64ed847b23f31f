"""Envoy's command operators (Envoy, "Access logging"), one class each: a field of an access-log line.

A field gives its value as text, "-" when absent, or as a JSON value, null when absent. What few values there are of
(methods, hosts, clusters, routes) is quoted once and remembered, within a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Final

from proxy.telemetry.record import Record

_MILLISECONDS: Final = [f".{ms:03d}Z" for ms in range(1000)]
_MAX_QUOTED: Final = 1024
_epoch = 0.0
_asked = -1.0
_second: int = -1
_prefix = ""
_quoted: dict[str, str] = {}
_quoted_bytes: dict[bytes, str] = {}


def start_time(started: float) -> str:
    """ISO 8601 with milliseconds, UTC: Envoy's default form of %START_TIME%. `started`: monotonic seconds. The wall
    clock is asked again every second, because it may be set."""
    global _epoch, _asked, _second, _prefix
    if not 0.0 <= started - _asked < 1.0:
        _asked = started
        _epoch = time.time() - time.monotonic()
    epoch = started + _epoch
    whole = int(epoch)
    if whole != _second:
        _second, _prefix = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return _prefix + _MILLISECONDS[int((epoch - whole) * 1000)]


def quote(text: str) -> str:
    """A JSON string."""
    return encode_basestring(text)


def _quote_few(text: str) -> str:
    known = _quoted.get(text)
    if known is None:
        known = encode_basestring(text)
        if len(_quoted) >= _MAX_QUOTED:
            _quoted.clear()
        _quoted[text] = known
    return known


def _quote_few_bytes(value: bytes) -> str:
    known = _quoted_bytes.get(value)
    if known is None:
        known = encode_basestring(value.decode("latin-1"))
        if len(value) <= 256:
            if len(_quoted_bytes) >= _MAX_QUOTED:
                _quoted_bytes.clear()
            _quoted_bytes[value] = known
    return known


class Field:
    """One operator."""

    __slots__ = ()

    def text(self, record: Record) -> str:
        """The value for a text format."""
        raise NotImplementedError

    def json(self, record: Record) -> str:
        """The value as JSON."""
        raise NotImplementedError


class Number(Field):
    """A value that is always a number."""

    __slots__ = ()

    def value(self, record: Record) -> int:
        raise NotImplementedError

    def text(self, record: Record) -> str:
        return str(self.value(record))

    def json(self, record: Record) -> str:
        return str(self.value(record))


class Text(Field):
    """A text of which there are few values; empty is absent."""

    __slots__ = ()

    def value(self, record: Record) -> str:
        raise NotImplementedError

    def text(self, record: Record) -> str:
        return self.value(record) or "-"

    def json(self, record: Record) -> str:
        value = self.value(record)
        return _quote_few(value) if value else "null"


class Header(Field):
    """REQ(NAME) and RESP(NAME) with ?ALTERNATIVE and :LENGTH. Bytes that are not ASCII are read as Latin-1."""

    __slots__ = ("_alternative", "_length", "_name", "_response")

    def __init__(self, response: bool, name: bytes, alternative: bytes, length: int) -> None:
        self._response = response
        self._name = name
        self._alternative = alternative
        self._length = length

    def value(self, record: Record) -> bytes | None:
        found = self._find(record, self._name)
        if found is None and self._alternative:
            found = self._find(record, self._alternative)
        return found[: self._length] if found is not None and self._length >= 0 else found

    def _find(self, record: Record, name: bytes) -> bytes | None:
        if self._response:
            return record.response_header(name)
        if name[0] == 58:  # ":"
            if name == b":method":
                return record.method()
            if name == b":path":
                return record.target()
            if name == b":authority":
                return record.authority()
        return record.request_header(name)

    def text(self, record: Record) -> str:
        value = self.value(record)
        return "-" if value is None else value.decode("latin-1")

    def json(self, record: Record) -> str:
        value = self.value(record)
        return "null" if value is None else quote(value.decode("latin-1"))


class PseudoHeader(Header):
    """REQ(:METHOD), REQ(:PATH) and REQ(:AUTHORITY), of which there are few values as a rule."""

    __slots__ = ()

    def json(self, record: Record) -> str:
        value = self.value(record)
        return "null" if value is None else _quote_few_bytes(value)


class StartTime(Field):
    __slots__ = ()

    def text(self, record: Record) -> str:
        return start_time(record.started)

    def json(self, record: Record) -> str:
        return '"' + start_time(record.started) + '"'


class Duration(Number):
    __slots__ = ()

    def value(self, record: Record) -> int:
        return int(record.duration * 1000.0)


class ResponseCode(Number):
    __slots__ = ()

    def value(self, record: Record) -> int:
        return record.status


class BytesReceived(Number):
    __slots__ = ()

    def value(self, record: Record) -> int:
        return record.bytes_received


class BytesSent(Number):
    __slots__ = ()

    def value(self, record: Record) -> int:
        return record.bytes_sent


class AttemptCount(Number):
    __slots__ = ()

    def value(self, record: Record) -> int:
        return record.attempts


class ResponseFlags(Field):
    """Envoy writes "-" for none in JSON, too."""

    __slots__ = ()

    def text(self, record: Record) -> str:
        return record.flags or "-"

    def json(self, record: Record) -> str:
        return '"' + record.flags + '"' if record.flags else '"-"'


class ResponseCodeDetails(Field):
    __slots__ = ()

    def text(self, record: Record) -> str:
        return record.details or "-"

    def json(self, record: Record) -> str:
        return quote(record.details) if record.details else "null"


class Protocol(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.protocol()


class UpstreamHost(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.upstream_host()


class UpstreamCluster(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.upstream_cluster()


class RouteName(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.route_name()


class PeerUriSan(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.peer_uri_san()


class RemoteAddress(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.downstream_address()


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


class RemoteHost(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return _host(record.downstream_address())


class DirectAddress(Text):
    """Of the connection, whatever x-forwarded-for says."""

    __slots__ = ()

    def value(self, record: Record) -> str:
        return record.direct_address()


class DirectHost(Text):
    __slots__ = ()

    def value(self, record: Record) -> str:
        return _host(record.direct_address())


class TraceId(Field):
    __slots__ = ()

    def text(self, record: Record) -> str:
        return record.trace_id() or "-"

    def json(self, record: Record) -> str:
        value = record.trace_id()
        return '"' + value + '"' if value else "null"


OPERATORS: Final[dict[str, Callable[[], Field]]] = {
    "START_TIME": StartTime,
    "DURATION": Duration,
    "PROTOCOL": Protocol,
    "RESPONSE_CODE": ResponseCode,
    "RESPONSE_FLAGS": ResponseFlags,
    "RESPONSE_CODE_DETAILS": ResponseCodeDetails,
    "BYTES_RECEIVED": BytesReceived,
    "BYTES_SENT": BytesSent,
    "UPSTREAM_HOST": UpstreamHost,
    "UPSTREAM_CLUSTER": UpstreamCluster,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": AttemptCount,
    "ROUTE_NAME": RouteName,
    "DOWNSTREAM_PEER_URI_SAN": PeerUriSan,
    "DOWNSTREAM_REMOTE_ADDRESS": RemoteAddress,
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": RemoteHost,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": DirectAddress,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": DirectHost,
    "TRACE_ID": TraceId,
}
"""The operators without an argument. REQ(NAME) and RESP(NAME) are Header."""
