"""Fields as HTTP/2 has them (RFC 9113 §8.2): checked and classified once, when one is made."""

from __future__ import annotations

import re
from typing import Final

from proxy.http import headers
from proxy.http.headers import MALFORMED, PLAIN, Field

_PSEUDO: Final[dict[bytes, int]] = {
    b":method": headers.METHOD,
    b":scheme": headers.SCHEME,
    b":path": headers.PATH,
    b":authority": headers.AUTHORITY,
    b":status": headers.STATUS,
    b":protocol": headers.PROTOCOL,
}
_OWN: Final[dict[bytes, int]] = {
    b"cookie": headers.COOKIE,
    # They speak of a connection, which HTTP/2 does otherwise (RFC 9113 §8.2.2).
    b"connection": MALFORMED,
    b"keep-alive": MALFORMED,
    b"proxy-connection": MALFORMED,
    b"transfer-encoding": MALFORMED,
    b"upgrade": MALFORMED,
}
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
"""RFC 9110 §5.6.2, without the capitals (RFC 9113 §8.2.1)."""
_CHANGED: Final = bytes(0x80 if (octet < 32 and octet != 9) or octet == 127 else octet for octet in range(256))
"""Changes what no value may hold, which is what HTTP/1.1 may not carry either (RFC 9110 §5.5), and nothing else."""
_MAX_NAMES: Final = 4096


class Name:
    """A field name: `kind` says what is done with its fields, see proxy.http.headers; MALFORMED when there can be none.

    `text` is one object for as long as the name is known, so that looking it up hashes and compares nothing.
    """

    __slots__ = ("kind", "text")

    def __init__(self, text: bytes) -> None:
        valid = _TOKEN.fullmatch(text) is not None
        self.text = text
        self.kind = _OWN.get(text, headers.KINDS.get(text, PLAIN)) if valid else _PSEUDO.get(text, MALFORMED)


_names: dict[bytes, Name] = {}
NAMES: Final = _names
"""The names that came lately, for callers that inline the common case of read_name."""


def read_name(text: bytes) -> Name:
    """The name of that text. They are few, so they are remembered, within a bound."""
    name = _names.get(text)
    if name is None:
        name = Name(text)
        if len(text) <= 64:
            if len(_names) >= _MAX_NAMES:
                _names.clear()
            _names[text] = name
    return name


def make_field(name: Name, value: bytes) -> Field:
    """The field of a name and a value; MALFORMED when either can not be (RFC 9113 §8.2.1)."""
    kind = name.kind
    if value and (value.translate(_CHANGED) != value or value[0] <= 32 or value[len(value) - 1] in (32, 9)):
        kind = MALFORMED
    return Field((name.text, value), kind, len(name.text) + len(value) + 32)
