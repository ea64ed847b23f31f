"""The access log's line: Envoy's command operators, compiled once into one function.

Source: Envoy, "Access logging", command operators. What is not listed in OPERATORS is an error when the
configuration is loaded.

A format becomes the source of one lambda, `template % (expression, expression, ...)`, as dataclasses and namedtuples
are made: one call a line instead of several a field. Only expressions of this file's table enter the source; what
comes from the configuration (names of headers, literals) is bound as constants.
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
    head: Any  # has method, target, authority
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
    direct_address: str
    details: str

    def request_header(self, name: bytes) -> bytes | None: ...

    def response_header(self, name: bytes) -> bytes | None: ...


_second: int = -1
_prefix = ""


def start_time(epoch: float) -> str:
    """ISO 8601 with milliseconds, UTC: Envoy's default form of %START_TIME%."""
    global _second, _prefix
    whole = int(epoch)
    if whole != _second:
        _second, _prefix = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{_prefix}.{int((epoch - whole) * 1000):03d}Z"


NUMBER: Final = "number"
PLAIN: Final = "plain"
TEXT: Final = "text"
BYTES: Final = "bytes"

OPERATORS: Final[dict[str, tuple[str, str]]] = {
    "START_TIME": ("start_time(r.start_time)", PLAIN),
    "DURATION": ("int(r.duration * 1000)", NUMBER),
    "PROTOCOL": ("r.protocol", TEXT),
    "RESPONSE_CODE": ("r.status", NUMBER),
    "RESPONSE_FLAGS": ("(r.flags or '-')", PLAIN),
    "RESPONSE_CODE_DETAILS": ("r.details", TEXT),
    "BYTES_RECEIVED": ("r.bytes_received", NUMBER),
    "BYTES_SENT": ("r.bytes_sent", NUMBER),
    "UPSTREAM_HOST": ("r.upstream_host", TEXT),
    "UPSTREAM_CLUSTER": ("r.upstream_cluster", TEXT),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": ("r.attempts", NUMBER),
    "ROUTE_NAME": ("r.route_name", TEXT),
    "DOWNSTREAM_PEER_URI_SAN": ("r.peer_uri_san", TEXT),
    "DOWNSTREAM_REMOTE_ADDRESS": ("r.downstream_address", PLAIN),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": ("r.downstream_address.rpartition(':')[0]", PLAIN),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": ("r.direct_address", PLAIN),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": ("r.direct_address.rpartition(':')[0]", PLAIN),
    "TRACE_ID": ("r.trace_id", TEXT),
}
"""Operator → (expression over the record `r`, kind). NUMBER is an int; PLAIN a str that is never empty and needs no
escaping; TEXT a str, empty for absent; BYTES bytes or None. REQ(NAME) and RESP(NAME), with ?ALTERNATIVE and :LENGTH,
are the operators with an argument."""

_ATTRIBUTES: Final = {":method": "r.head.method", ":path": "r.head.target", ":authority": "r.head.authority"}

_OPERATOR: Final = re.compile(
    r"%(?:(?P<name>[A-Z_]+)(?:\((?P<arg>[^()%]*)\))?(?::(?P<length>[0-9]+))?|(?P<percent>%))?(?P<end>%)?"
)

Constants = dict[str, Any]


def _constant(constants: Constants, value: object) -> str:
    """A name for `value` in the compiled expression."""
    name = f"c{len(constants)}"
    constants[name] = value
    return name


def _header(constants: Constants, operator: str, argument: str, length: str | None) -> str:
    """The expression of REQ(...) or RESP(...). Raises ValueError."""
    names = [name.lower() for name in argument.split("?")]
    if len(names) > 2 or not all(names):
        raise ValueError(f"%{operator}({argument})%: {argument!r} is not NAME or NAME?ALTERNATIVE")
    method = "r.request_header" if operator == "REQ" else "r.response_header"
    found = []
    for name in names:
        if operator == "REQ" and name in _ATTRIBUTES:
            found.append(_ATTRIBUTES[name])
        else:
            found.append(f"{method}({_constant(constants, name.encode('latin-1', 'replace'))})")
    expression = found[0] if len(found) == 1 else f"first({found[0]}, {found[1]})"
    return expression if length is None else f"cut({expression}, {int(length)})"


def parse(form: str, constants: Constants) -> tuple[list[str], list[tuple[str, str]]]:
    """Cut a format into literals and (expression, kind) pairs, one literal more than pairs. Raises ValueError."""
    literals: list[str] = []
    fields: list[tuple[str, str]] = []
    literal, at = "", 0
    for found in _OPERATOR.finditer(form):
        literal += form[at : found.start()]
        at = found.end()
        name, argument, length = found["name"], found["arg"], found["length"]
        if found["percent"]:
            literal += "%"
            at = found.start() + 2
            continue
        if not name or not found["end"]:
            raise ValueError(f"a lone % at position {found.start()} of {form!r}; write %% for one")
        if name in ("REQ", "RESP"):
            if not argument:
                raise ValueError(f"%{name}% needs a header name: %{name}(X-NAME)%")
            field = (_header(constants, name, argument, length), BYTES)
        elif argument is not None or length is not None:
            raise ValueError(f"%{name}% takes no argument here")
        elif name in OPERATORS:
            field = OPERATORS[name]
        else:
            known = ", ".join([*sorted(OPERATORS), "REQ(NAME)", "RESP(NAME)"])
            raise ValueError(f"unknown operator %{name}%; known: {known}")
        literals.append(literal)
        fields.append(field)
        literal = ""
    literals.append(literal + form[at:])
    return literals, fields


def check(form: str) -> str | None:
    """What is wrong with a format string, or None."""
    try:
        parse(form, {})
    except ValueError as error:
        return str(error)
    return None


def compile_text(form: str) -> Callable[[Record], str]:
    """A text format, as Envoy's text_format: absent values are "-". Raises ValueError."""
    constants: Constants = {}
    literals, fields = parse(form, constants)
    return _compile("%s".join(map(_quoted, literals)), [_as_text(*field) for field in fields], constants)


def compile_value(form: str) -> Callable[[Record], str]:
    """A header's value (envoy.config.core.v3.HeaderValue): absent values are empty. Raises ValueError."""
    constants: Constants = {}
    literals, fields = parse(form, constants)
    expressions = [f"value_bytes({field[0]})" if field[1] == BYTES else field[0] for field in fields]
    return _compile("%s".join(map(_quoted, literals)), expressions, constants)


def compile_json(members: tuple[tuple[str, str], ...]) -> Callable[[Record], str]:
    """A JSON object a line, as Envoy's json_format: absent values are null, a lone number stays a number.

    Raises ValueError.
    """
    constants: Constants = {}
    template: list[str] = []
    expressions: list[str] = []
    for name, form in members:
        literals, fields = parse(form, constants)
        label = _quoted(encode_basestring(name))
        if not fields:
            template.append(f"{label}:{_quoted(encode_basestring(literals[0]))}")
        elif literals == ["", ""]:
            expression, kind = fields[0]
            template.append(f'{label}:"%s"' if kind == PLAIN else f"{label}:%s")
            expressions.append(_JSON[kind] % expression)
        else:
            inner = _constant(constants, "%s".join(map(_quoted, literals)))
            values = ", ".join(_as_text(*field) for field in fields)
            template.append(f"{label}:%s")
            expressions.append(f"quote({inner} % ({values},))")
    return _compile("{" + ",".join(template) + "}\n", expressions, constants)


_JSON: Final = {NUMBER: "%s", PLAIN: "%s", TEXT: "json_text(%s)", BYTES: "json_bytes(%s)"}


def _quoted(literal: str) -> str:
    return literal.replace("%", "%%")


def _as_text(expression: str, kind: str) -> str:
    if kind == BYTES:
        return f"text_bytes({expression})"
    return f"({expression} or '-')" if kind == TEXT else expression


def _json_text(value: str) -> str:
    return encode_basestring(value) if value else "null"


def _json_bytes(value: bytes | None) -> str:
    return "null" if value is None else encode_basestring(value.decode("latin-1"))


def _text_bytes(value: bytes | None) -> str:
    return "-" if value is None else value.decode("latin-1")


def _value_bytes(value: bytes | None) -> str:
    return "" if value is None else value.decode("latin-1")


def _first(value: bytes | None, alternative: bytes | None) -> bytes | None:
    return value if value is not None else alternative


def _cut(value: bytes | None, length: int) -> bytes | None:
    return None if value is None else value[:length]


def _compile(template: str, expressions: list[str], constants: Constants) -> Callable[[Record], str]:
    names: Constants = {
        **constants,
        "start_time": start_time,
        "quote": encode_basestring,
        "json_text": _json_text,
        "json_bytes": _json_bytes,
        "text_bytes": _text_bytes,
        "value_bytes": _value_bytes,
        "first": _first,
        "cut": _cut,
        "template": template,
    }
    source = f"lambda r: template % ({''.join(f'{expression}, ' for expression in expressions)})"
    line: Callable[[Record], str] = eval(source, names)  # noqa: S307  # only this file's expressions, see above
    return line
