"""The access log's line: a format of Envoy's command operators, compiled once into a list of fields.

Source: Envoy, "Access logging", command operators. What is not listed in proxy.telemetry.operators is an error when
the configuration is loaded.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.telemetry.operators import OPERATORS, Field, Header, PseudoHeader, quote
from proxy.telemetry.record import Record

_OPERATOR: Final = re.compile(
    r"%(?:(?P<name>[A-Z_]+)(?:\((?P<arg>[^()%]*)\))?(?::(?P<length>[0-9]+))?|(?P<percent>%))?(?P<end>%)?"
)
_PSEUDO: Final = frozenset((b":method", b":path", b":authority"))


def _header(operator: str, argument: str, length: str | None) -> Field:
    """The field of REQ(...) or RESP(...). Raises ValueError."""
    names = [name.lower() for name in argument.split("?")]
    if len(names) > 2 or not all(names):
        raise ValueError(f"%{operator}({argument})%: {argument!r} is not NAME or NAME?ALTERNATIVE")
    name, alternative = (part.encode("latin-1", "replace") for part in [*names, ""][:2])
    form = PseudoHeader if operator == "REQ" and name in _PSEUDO and not alternative else Header
    return form(operator == "RESP", name, alternative, -1 if length is None else int(length))


def parse(form: str) -> tuple[list[str], list[Field]]:
    """Cut a format into literals and fields, one literal more than fields. Raises ValueError."""
    literals: list[str] = []
    fields: list[Field] = []
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
            fields.append(_header(name, argument, length))
        elif argument is not None or length is not None:
            raise ValueError(f"%{name}% takes no argument here")
        elif name in OPERATORS:
            fields.append(OPERATORS[name]())
        else:
            known = ", ".join([*sorted(OPERATORS), "REQ(NAME)", "RESP(NAME)"])
            raise ValueError(f"unknown operator %{name}%; known: {known}")
        literals.append(literal)
        literal = ""
    literals.append(literal + form[at:])
    return literals, fields


def check(form: str) -> str | None:
    """What is wrong with a format string, or None."""
    try:
        parse(form)
    except ValueError as error:
        return str(error)
    return None


class Line:
    """A compiled format."""

    __slots__ = ("_fields", "_json", "_literals")

    def __init__(self, literals: list[str], fields: list[Field], json: bool) -> None:
        self._literals = literals
        self._fields = fields
        self._json = json

    def write(self, record: Record) -> str:
        """The line that tells of `record`."""
        literals, fields = self._literals, self._fields
        parts: list[str] = []
        for index in range(len(fields)):
            parts.append(literals[index])
            field = fields[index]
            parts.append(field.json(record) if self._json else field.text(record))
        parts.append(literals[len(fields)])
        return "".join(parts)


class _Mixed(Field):
    """A JSON string made of several fields or of fields and literals."""

    __slots__ = ("_line",)

    def __init__(self, literals: list[str], fields: list[Field]) -> None:
        self._line = Line(literals, fields, False)

    def json(self, record: Record) -> str:
        return quote(self._line.write(record))


def compile_text(form: str) -> Line:
    """A text format, as Envoy's text_format: absent values are "-". Raises ValueError."""
    literals, fields = parse(form)
    return Line(literals, fields, False)


def compile_json(members: tuple[tuple[str, str], ...]) -> Line:
    """A JSON object a line, as Envoy's json_format: absent values are null, a lone number stays a number.

    Raises ValueError.
    """
    literals: list[str] = []
    fields: list[Field] = []
    literal = "{"
    for index, (name, form) in enumerate(members):
        inner, found = parse(form)
        literal += ("," if index else "") + quote(name) + ":"
        if not found:
            literal += quote(inner[0])
            continue
        literals.append(literal)
        literal = ""
        fields.append(found[0] if inner == ["", ""] else _Mixed(inner, found))
    literals.append(literal + "}\n")
    return Line(literals, fields, True)
