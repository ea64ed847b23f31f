"""What reading requests and reading responses share: httptools callbacks that collect header fields, bounded.

The strictness is llhttp's own plus the checks here. Nothing is repaired: RFC 9112 §2.2 and §6.3 leave a proxy the
choice, and the choice here is to refuse.
"""

from __future__ import annotations

from typing import Final

from proxy.http import headers as names
from proxy.http.headers import SPELLINGS, Headers, classify, tokens
from proxy.http.heads import CHUNKED

_ALONE: Final = {b"keep-alive": True, b"Keep-Alive": True, b"close": False, b"Close": False}
"""What nearly every Connection field is, and whether the connection persists then."""
_OWN_TOKENS: Final = frozenset((b"close", b"keep-alive", b"te", b"upgrade", b"trailer", b"transfer-encoding"))
SLICE: Final = 16 * 1024
"""Bytes parsed at once while a head is awaited: how far a head that begins mid-way can exceed its bound unseen."""
BLANK: Final = frozenset((b" ", b"\t"))
"""What llhttp leaves at the end of a value."""


class ProtocolError(Exception):
    """The peer broke HTTP; the connection cannot go on. `too_large` asks for 431 instead of 400."""

    def __init__(self, text: str, too_large: bool = False) -> None:
        super().__init__(text)
        self.too_large = too_large


class Reader:
    """What requests and responses share: collecting header fields, bounded, and lifting out the hop's own."""

    __slots__ = (
        "_connection",
        "_content_length",
        "_fed",
        "_headers",
        "_in_head",
        "_max_count",
        "_max_size",
        "_special",
        "_trailers",
        "_transfer_encoding",
    )

    def __init__(self, max_size: int, max_count: int) -> None:
        self._max_size = max_size
        self._max_count = max_count
        self._headers: Headers = []
        self._special: list[tuple[int, bytes]] = []
        self._connection: bytes | None = None
        self._content_length: bytes | None = None
        self._transfer_encoding: bytes | None = None
        self._trailers: Headers | None = None  # where fields go once the head is complete
        self._in_head = True
        # Bytes fed since the head began, or since the last byte of content: bounds a head, a chunk extension and a
        # trailer section that never end.
        self._fed = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools callback: one field, of the head or of the trailer section."""
        known = SPELLINGS.get(name) or classify(name)
        if value[-1:] in BLANK:  # llhttp keeps the optional white space after a value (RFC 9112 §5)
            value = value.rstrip(b" \t")
        if self._trailers is not None:
            self._keep_trailer(self._trailers, known, value)
        elif known[1]:
            self._lift(known[1], value)
        else:
            self._headers.append((known[0], value))

    def _lift(self, kind: int, value: bytes) -> None:
        if kind == names.CONTENT_LENGTH:
            if self._content_length is not None:
                raise ProtocolError("more than one content-length (RFC 9112 §6.3)")
            self._content_length = value
        elif kind == names.CONNECTION:
            self._connection = value if self._connection is None else self._connection + b"," + value
        elif kind == names.TRANSFER_ENCODING:
            if self._transfer_encoding is not None:
                raise ProtocolError("more than one transfer-encoding (RFC 9112 §6.1)")
            self._transfer_encoding = value
        elif kind != names.HOP:
            self._special.append((kind, value))

    def _check_fed(self) -> None:
        """After each feed."""
        if self._fed > self._max_size:
            what = "header section" if self._in_head else "chunk extensions or trailers"
            raise ProtocolError(f"{what} of more than {self._max_size} bytes", too_large=self._in_head)

    def _keep_trailer(self, trailers: Headers, known: tuple[bytes, int], value: bytes) -> None:
        if known[1] == names.PLAIN and known[0] not in names.NO_TRAILERS:
            trailers.append((known[0], value))
            if len(trailers) > self._max_count:
                raise ProtocolError("too many trailer fields", too_large=True)

    def _check_size(self) -> None:
        """RFC 6585 §5: bound the header section by bytes and by fields."""
        headers = self._headers
        if len(headers) + len(self._special) > self._max_count:
            raise ProtocolError(f"more than {self._max_count} header fields", too_large=True)
        if self._fed > self._max_size - SLICE and sum(len(n) + len(v) + 4 for n, v in headers) > self._max_size:
            raise ProtocolError(f"header section of more than {self._max_size} bytes", too_large=True)

    def _framing(self, http10: bool, absent: int) -> int:
        """The body's length: bytes, CHUNKED, or `absent` when no field tells (RFC 9112 §6.3)."""
        coding, length = self._transfer_encoding, self._content_length
        if coding is not None:
            if length is not None:
                raise ProtocolError("both content-length and transfer-encoding (RFC 9112 §6.3)")
            if coding.lower() != b"chunked":
                raise ProtocolError("a transfer-encoding other than chunked (RFC 9112 §7)")
            if http10:
                raise ProtocolError("transfer-encoding in an HTTP/1.0 message (RFC 9112 §6.1)")
            return CHUNKED
        if length is None:
            return absent
        if not length.isdigit() or len(length) > 18:
            raise ProtocolError("content-length is no plain number (RFC 9110 §8.6)")
        return int(length)

    def _persistence(self, http10: bool) -> bool:
        """Whether the connection outlives the message (RFC 9112 §9.3); drops what Connection names (§7.6.1)."""
        connection = self._connection
        if connection is None:
            return not http10
        alone = _ALONE.get(connection)
        if alone is not None:
            return alone
        named = tokens(connection)
        foreign = [token for token in named if token not in _OWN_TOKENS]
        if foreign:
            self._headers = [pair for pair in self._headers if pair[0] not in foreign]
        if b"close" in named:
            return False
        return b"keep-alive" in named if http10 else True

    def _reset(self) -> None:
        self._headers = []
        self._trailers = None
        if self._special:
            self._special = []
        self._connection = self._content_length = self._transfer_encoding = None
        self._in_head = True
        self._fed = 0
