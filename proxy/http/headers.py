"""Header names: lower-cased and classified once per spelling, then found with one dict lookup."""

from __future__ import annotations

from typing import Any, Final

Headers = list[tuple[bytes, bytes]]
"""(lower-case name, value) in wire order; several of a name stay apart."""

# What parsing does with a name. PLAIN is forwarded as it is; everything else is lifted out of the list into a field
# of the head, or dropped because it speaks of one hop only (RFC 9110 §7.6.1).
PLAIN: Final = 0
HOP: Final = 1
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
UPGRADE: Final = 6
EXPECT: Final = 7
TRACEPARENT: Final = 8
REQUEST_ID: Final = 9
FORWARDED_PROTO: Final = 10
CLIENT_CERT: Final = 11
UNSENT: Final = 12
TE: Final = 13
SERVER: Final = 14
DATE: Final = 15
GRPC_TIMEOUT: Final = 16
# HTTP/2 only: the pseudo-header fields (RFC 9113 §8.3, RFC 8441 §4), and what RFC 9113 §8.2.1 calls malformed: a name
# or a value that must not be, or a pseudo-header field that nothing defines.
METHOD: Final = 17
SCHEME: Final = 18
PATH: Final = 19
AUTHORITY: Final = 20
STATUS: Final = 21
PROTOCOL: Final = 22
MALFORMED: Final = 23
COOKIE: Final = 24


class Field:
    """A header field, read, checked and classified: `pair` is (lower-case name, value), `kind` is one of the above.

    `size` is what it counts in HPACK, in octets (RFC 7541 §4.1); 0 for a field of HTTP/1.1.
    """

    __slots__ = ("kind", "pair", "size")

    def __init__(self, pair: Any, kind: int, size: int = 0) -> None:
        # Typed Any so that the compiled form hands on the tuple as it is, and does not unpack and pack it again.
        self.pair: Any = pair
        self.kind = kind
        self.size = size


UNSENT_HEADER: Final = b"x-pillion-unsent"
"""On a 503 between two sidecars: the request never reached the app, so it may safely go elsewhere."""

KINDS: Final[dict[bytes, int]] = {
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"proxy-authenticate": HOP,
    b"proxy-authorization": HOP,
    b"trailer": PLAIN,
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"te": TE,
    b"traceparent": TRACEPARENT,
    b"x-request-id": REQUEST_ID,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-client-cert": CLIENT_CERT,
    b"server": SERVER,
    b"date": DATE,
    b"grpc-timeout": GRPC_TIMEOUT,
    UNSENT_HEADER: UNSENT,
}

NO_TRAILERS: Final = frozenset((
    b"authorization", b"www-authenticate", b"authentication-info", b"cookie", b"set-cookie", b"age", b"cache-control",
    b"expires", b"pragma", b"vary", b"warning", b"location", b"retry-after", b"content-encoding", b"content-type",
    b"content-range", b"content-location", b"range", b"if-match", b"if-none-match", b"if-modified-since",
    b"if-unmodified-since", b"if-range", b"max-forwards", b"trailer", b"tracestate", b"forwarded", b"x-forwarded-for",
    b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip",
))  # fmt: skip
"""Ordinary fields that must not come in a trailer section, where whoever merges it would believe them late: framing,
routing, authentication, modifiers and content (RFC 9110 §6.5.1)."""

SECRET: Final = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key"))
"""Fields whose values are kept no longer than their message."""

_MAX_INTERNED: Final = 4096
_spellings: dict[bytes, tuple[bytes, int]] = {}


def classify(name: bytes) -> tuple[bytes, int]:
    """(lower-case name, kind) for any spelling of a header name, which must be a token: what is in the table of
    spellings is not checked again.

    The table is bounded: names beyond it are computed each time.
    """
    known = _spellings.get(name)
    if known is None:
        lower = name.lower()
        known = (lower, KINDS.get(lower, PLAIN))
        if len(name) <= 64:
            if len(_spellings) >= _MAX_INTERNED:
                _spellings.clear()
            _spellings[name] = known
    return known


SPELLINGS: Final = _spellings
"""The table behind classify, for callers that inline its common case."""


def find(headers: Headers, name: bytes) -> bytes | None:
    """The values of `name`, joined with a comma as RFC 9110 §5.3 allows; None when absent."""
    found: bytes | None = None
    for key, value in headers:
        if key == name:
            found = value if found is None else found + b"," + value
    return found


def tokens(value: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated list of tokens (RFC 9110 §5.6.1), empty ones left out."""
    return [part for part in (piece.strip(b" \t").lower() for piece in value.split(b",")) if part]
