"""The access log's line: Envoy's command operators, compiled once into a template and a tuple of readers.

Source: Envoy, "Access logging", command operators. What is not listed in OPERATORS is an error when the
configuration is loaded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, Final, Protocol


class Record(Protocol):
    """What a line can tell of one request. The worker's exchange is one. Times are seconds of the epoch."""

    start_time: float
    duration: float
    protocol: str
    status: int
    flags: str
    bytes_received: int
    bytes_sent: int
    upstream_host: str
    upstream_cluster: str
    route_name: str
    peer_uri_san: str
    trace_id: str
    attempts: int
    downstream_address: str
    details: str

    def request_header(self, name: bytes) -> bytes | None: ...

    def response_header(self, name: bytes) -> bytes | None: ...


Reader = Callable[[Any], str | int | None]

_second: int = -1
_prefix = ""


def start_time(epoch: float) -> str:
    """ISO 8601 with milliseconds, UTC: Envoy's default form of %START_TIME%."""
    global _second, _prefix
    whole = int(epoch)
    if whole != _second:
        _second, _prefix = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{_prefix}.{int((epoch - whole) * 1000):03d}Z"


OPERATORS: Final[dict[str, Reader]] = {
    "START_TIME": lambda r: start_time(r.start_time),
    "DURATION": lambda r: int(r.duration * 1000),
    "PROTOCOL": lambda r: r.protocol,
    "RESPONSE_CODE": lambda r: r.status,
    "RESPONSE_FLAGS": lambda r: r.flags or None,
    "RESPONSE_CODE_DETAILS": lambda r: r.details or None,
    "BYTES_RECEIVED": lambda r: r.bytes_received,
    "BYTES_SENT": lambda r: r.bytes_sent,
    "UPSTREAM_HOST": lambda r: r.upstream_host or None,
    "UPSTREAM_CLUSTER": lambda r: r.upstream_cluster or None,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": lambda r: r.attempts,
    "ROUTE_NAME": lambda r: r.route_name or None,
    "DOWNSTREAM_PEER_URI_SAN": lambda r: r.peer_uri_san or None,
    "DOWNSTREAM_REMOTE_ADDRESS": lambda r: r.downstream_address,
    "TRACE_ID": lambda r: r.trace_id or None,
}
"""The operators without argument; REQ(NAME) and RESP(NAME), with ?ALTERNATIVE and :LENGTH, are the others."""

_OPERATOR: Final = re.compile(
    r"%(?:(?P<name>[A-Z_]+)(?:\((?P<arg>[^()%]*)\))?(?::(?P<length>[0-9]+))?|(?P<percent>%))?(?P<end>%)?"
)


def _header(argument: str, request: bool) -> Callable[[Any], bytes | None]:
    names = [name.lower() for name in argument.split("?")]
    if len(names) > 2 or not all(names):
        raise ValueError(f"{argument!r} is not NAME or NAME?ALTERNATIVE")

    def reader(name: str) -> Callable[[Any], bytes | None]:
        wanted = name.encode("latin-1")
        if request:
            return lambda r: r.request_header(wanted)
        return lambda r: r.response_header(wanted)

    first = reader(names[0])
    if len(names) == 1:
        return first
    second = reader(names[1])

    def either(record: Any) -> bytes | None:
        value = first(record)
        return value if value is not None else second(record)

    return either


def _operator(name: str, argument: str | None, length: str | None) -> Reader:
    """The reader behind one %OPERATOR%. Raises ValueError."""
    if name in ("REQ", "RESP"):
        if not argument:
            raise ValueError(f"%{name}% needs a header name: %{name}(X-NAME)%")
        raw = _header(argument, name == "REQ")
        limit = int(length) if length else None

        def text(record: Any) -> str | None:
            value = raw(record)
            return None if value is None else value.decode("latin-1")[:limit]

        return text
    if argument is not None or length is not None:
        raise ValueError(f"%{name}% takes no argument here")
    try:
        return OPERATORS[name]
    except KeyError:
        known = ", ".join([*sorted(OPERATORS), "REQ(NAME)", "RESP(NAME)"])
        raise ValueError(f"unknown operator %{name}%; known: {known}") from None


def parse(form: str) -> tuple[list[str], list[Reader]]:
    """Cut a format into literals and readers, one literal more than readers. Raises ValueError."""
    literals, readers, literal, at = [], [], "", 0
    for found in _OPERATOR.finditer(form):
        literal += form[at : found.start()]
        at = found.end()
        if found["percent"]:
            literal += "%"
            at = found.start() + 2
        elif found["name"] and found["end"]:
            literals.append(literal)
            readers.append(_operator(found["name"], found["arg"], found["length"]))
            literal = ""
        else:
            raise ValueError(f"a lone % at position {found.start()} of {form!r}; write %% for one")
    literals.append(literal + form[at:])
    return literals, readers


def check(form: str) -> str | None:
    """What is wrong with a format string, or None."""
    try:
        parse(form)
    except ValueError as error:
        return str(error)
    return None


def compile_text(form: str) -> Callable[[Record], str]:
    """A text format, as Envoy's text_format: absent values are "-". Raises ValueError."""
    literals, readers = parse(form)
    template = "%s".join(part.replace("%", "%%") for part in literals)

    def line(record: Record) -> str:
        return template % tuple(["-" if (v := read(record)) is None else v for read in readers])

    return line


def compile_json(fields: tuple[tuple[str, str], ...]) -> Callable[[Record], str]:
    """A JSON object a line, as Envoy's json_format: absent values are null, a lone number stays a number.

    Raises ValueError.
    """
    parts: list[str] = []
    readers: list[Reader] = []
    for name, form in fields:
        label = encode_basestring(name).replace("%", "%%")
        literals, found = parse(form)
        if len(found) == 1 and literals == ["", ""]:
            readers.append(found[0])
            parts.append(f"{label}:%s")
        elif not found:
            parts.append(f"{label}:{encode_basestring(literals[0]).replace('%', '%%')}")
        else:
            readers.append(_mixed(form))
            parts.append(f"{label}:%s")
    template = "{" + ",".join(parts) + "}\n"

    def line(record: Record) -> str:
        return template % tuple([_json(read(record)) for read in readers])

    return line


def _mixed(form: str) -> Reader:
    return compile_text(form)


def _json(value: str | int | None) -> str | int:
    if value is None:
        return "null"
    return encode_basestring(value) if value.__class__ is str else value
