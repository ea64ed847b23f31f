"""Field lines (RFC 9112 §5), read one by one.

Peers send the same lines again and again, so lines that were valid once are remembered, within a bound.
"""

from __future__ import annotations

import re
from typing import Final

from proxy import errors
from proxy.errors import ErrorKind
from proxy.http.headers import REQUEST_ID, SECRET, SPELLINGS, TRACEPARENT, Field, classify


class ProtocolError(Exception):
    """The peer broke HTTP; the connection cannot go on. `kind` is the reply that a client gets."""

    def __init__(self, text: str, kind: ErrorKind = errors.BAD_REQUEST) -> None:
        super().__init__(text)
        self.kind = kind


TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 §5.6.2."""
_CONTROLS: Final = bytes(octet for octet in range(128) if (octet < 32 and octet != 9) or octet == 127)
"""What no line may hold: with CR, LF or NUL inside, two readers could see different lines (RFC 9110 §5.5)."""
_MAX_LINES: Final = 2048
_MAX_LINE: Final = 200
_lines: dict[bytes, Field] = {}
LINES: Final = _lines
"""The lines that were read lately, for callers that inline the common case of read_line."""


def check_line(line: bytes) -> None:
    """Raise ProtocolError for a character that no line may hold."""
    if len(line.translate(None, _CONTROLS)) != len(line):
        raise ProtocolError(_what_is_wrong(line))


def _what_is_wrong(line: bytes) -> str:
    if b"\n" in line:
        return "a line that ends in LF alone (RFC 9112 §2.2)"
    if b"\r" in line:
        return "a CR that ends no line (RFC 9112 §2.2)"
    return "a control character (RFC 9110 §5.5)"


def read_line(line: bytes) -> Field:
    """One field line. Raises ProtocolError."""
    known = _lines.get(line)
    if known is not None:
        return known
    check_line(line)
    colon = line.find(b":")
    if colon <= 0:
        raise ProtocolError(_no_field(line))
    name = line[:colon]
    lower, kind = SPELLINGS.get(name) or _spelling(name, line)
    found = Field((lower, line[colon + 1 :].strip(b" \t")), kind)
    # What differs with every request, and what is secret, would only take the place of others.
    if len(line) <= _MAX_LINE and kind != TRACEPARENT and kind != REQUEST_ID and lower not in SECRET:
        if len(_lines) >= _MAX_LINES:
            _lines.clear()
        _lines[line] = found
    return found


def _spelling(name: bytes, line: bytes) -> tuple[bytes, int]:
    if TOKEN.fullmatch(name) is None:
        raise ProtocolError(_no_field(line))
    return classify(name)


def _no_field(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a folded line (RFC 9112 §5.2)"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "a field line without a colon (RFC 9112 §5)"
    if name.rstrip(b" \t") != name:
        return "white space before a colon (RFC 9112 §5.1)"
    return "a field name that is no token (RFC 9110 §5.1)"
