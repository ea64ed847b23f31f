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
_names: dict[bytes, int] = {}


def kind_of(name: bytes) -> int:
    """What is done with fields of this name: see proxy.http.headers; MALFORMED when there can be none."""
    kind = _names.get(name)
    if kind is not None:
        return kind
    valid = _TOKEN.fullmatch(name) is not None
    kind = _OWN.get(name, headers.KINDS.get(name, PLAIN)) if valid else _PSEUDO.get(name, MALFORMED)
    if len(name) <= 64:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        _names[name] = kind
    return kind


def make_field(name: bytes, value: bytes, kind: int) -> Field:
    """The field of a name, whose kind is `kind`, and a value; MALFORMED when the value is none (RFC 9113 §8.2.1)."""
    if value and (value.translate(_CHANGED) != value or value[0] <= 32 or value[len(value) - 1] in (32, 9)):
        kind = MALFORMED
    return Field((name, value), kind, len(name) + len(value) + 32)
