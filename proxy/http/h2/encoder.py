"""HPACK encoding (RFC 7541) for forwarding: speed first, size second.

Strings are sent as they are, without Huffman coding. Only what is likely to come again enters the peer's table: a pair
that was seen before on any connection.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.http.h2.static_table import PAIRS, SIZE
from proxy.http.headers import SECRET

DEFAULT_TABLE_SIZE: Final = 4096
"""What a peer's limit is until it says otherwise (RFC 9113 §6.5.2), and the most that we spend."""

# How a field that is in no table is sent.
_INDEXED: Final = 0
"""As a literal that enters the table, once it comes again (RFC 7541 §6.2.1)."""
_PLAIN: Final = 1
"""As a literal that does not: its value will hardly come again (§6.2.2)."""
_NEVER: Final = 2
"""As a literal that no hop may index: its value is secret (§6.2.3)."""

_UNIQUE: Final = frozenset((
    b"traceparent", b"tracestate", b"x-request-id", b"content-length", b"grpc-timeout", b"etag", b"if-none-match",
    b"if-modified-since", b"content-range", b"range", b"location", b"age", b"expires",
    b"grpc-message", b"x-envoy-upstream-service-time", b"x-envoy-expected-rq-timeout-ms",
    b"x-forwarded-client-cert", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"b3",
))  # fmt: skip
"""Names whose values differ with almost every message."""
_STAPLES: Final = frozenset((
    b":authority", b"content-type", b"te", b"user-agent", b"grpc-accept-encoding", b"grpc-encoding",
    b"accept-encoding", b"server", b"grpc-status",
))  # fmt: skip
"""Names whose values are few: they enter the table at once."""

_MAX_NAMES: Final = 2048
_SEEN: Final = 2047
"""A mask for the hashes of pairs: how many are remembered, less one."""
_MAX_ENTRY: Final = 512
"""Larger fields would displace too many others."""


def _integer(value: int, prefix: int, pattern: int) -> bytes:
    """`value` in a prefix of so many bits, below the bits of `pattern` (RFC 7541 §5.1)."""
    full = (1 << prefix) - 1
    if value < full:
        return bytes((pattern | value,))
    out = bytearray((pattern | full,))
    value -= full
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_INDICES: Final = [_integer(index, 7, 0x80) for index in range(SIZE + 1 + DEFAULT_TABLE_SIZE // 32)]
"""The indexed field of each index (§6.1)."""
_LENGTHS: Final = [_integer(length, 7, 0) for length in range(256)]
_STATIC_PAIRS: Final[dict[Any, int]] = {pair: index for index, pair in enumerate(PAIRS, 1) if pair[0] not in SECRET}
_STATIC_NAMES: Final = {pair[0]: index for index, pair in reversed(list(enumerate(PAIRS, 1)))}


class _Name:
    """How fields of one name begin, per representation, and which representation is meant for them."""

    __slots__ = ("form", "indexed", "never", "plain", "staple")

    def __init__(self, name: bytes) -> None:
        index = _STATIC_NAMES.get(name, 0)
        string = b"" if index else _integer(len(name), 7, 0) + name
        self.indexed = _integer(index, 6, 0x40) + string
        self.plain = _integer(index, 4, 0x00) + string
        self.never = _integer(index, 4, 0x10) + string
        self.form = _NEVER if name in SECRET else _PLAIN if name in _UNIQUE else _INDEXED
        self.staple = name in _STAPLES


_names: dict[bytes, _Name] = {}
_seen: Final = [0] * (_SEEN + 1)
"""Hashes of pairs that were sent lately on any connection: each in the place of its last bits."""


def _name(name: bytes) -> _Name:
    known = _names.get(name)
    if known is None:
        known = _Name(name)
        if len(name) <= 64:
            if len(_names) >= _MAX_NAMES:
                _names.clear()
            _names[name] = known
    return known


class Encoder:
    """One direction of a connection. `max_table_size`: what the peer's table may take at most, in octets; not more than
    DEFAULT_TABLE_SIZE is used."""

    __slots__ = ("_first", "_lowest", "_max", "_next", "_numbers", "_order", "_said", "_size", "_wanted")

    def __init__(self, max_table_size: int) -> None:
        # A pair of the static table has its index. The pair that was inserted n-th has n + SIZE: _next less that
        # is its index now.
        self._numbers: dict[Any, int] = {}
        self._next = 2 * SIZE + 1
        self._order: list[Any] = []
        self._first = 0  # of _order: those before it were evicted
        self._size = 0
        self._wanted = min(max_table_size, DEFAULT_TABLE_SIZE)
        self._max = self._wanted
        self._said = DEFAULT_TABLE_SIZE  # what the peer's decoder takes the size to be
        self._lowest = self._max  # since the last block

    def limit(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE has changed: its next block says what we use of it (RFC 7541 §4.2)."""
        self._max = min(size, self._wanted)
        self._lowest = min(self._lowest, self._max)
        self._evict(self._max)

    def encode(self, fields: list[Any], sensitive: list[bytes]) -> bytes:
        """The block of `fields`, each of them an exact (name, value) of bytes, pseudo-header fields first. Those whose
        names are in `sensitive` are never indexed."""
        out: list[bytes] = []
        if self._said != self._max or self._lowest < self._max:
            self._update(out)
        numbers = self._numbers
        for pair in fields:
            number = numbers.get(pair, 0)
            if number > SIZE:
                number = self._next - number
            if number == 0 or sensitive:
                self._literal(out, pair, number, sensitive)
            else:
                out.append(_INDICES[number])
        return b"".join(out)

    def _literal(self, out: list[bytes], pair: tuple[bytes, ...], number: int, sensitive: list[bytes]) -> None:
        name = pair[0]
        value = pair[1]
        known = _names.get(name) or _name(name)
        if sensitive and name in sensitive:
            out.append(known.never)
        elif number:
            out.append(_INDICES[number])
            return
        elif known.form == _PLAIN:
            out.append(known.plain)
        elif known.form == _NEVER:
            out.append(known.never)
        else:
            number = _STATIC_PAIRS.get(pair, 0)
            if number:
                self._numbers[pair] = number
                out.append(_INDICES[number])
                return
            out.append(known.indexed if self._insert(pair, known) else known.plain)
        length = len(value)
        out.append(_LENGTHS[length] if length < 256 else _integer(length, 7, 0))
        out.append(value)

    def _insert(self, pair: tuple[bytes, ...], known: _Name) -> bool:
        """Whether `pair` enters the table, which it does if it is likely to come again."""
        size = len(pair[0]) + len(pair[1]) + 32
        if size > _MAX_ENTRY or size > self._max:
            return False
        if not known.staple:
            mark = hash(pair)
            place = mark & _SEEN
            if _seen[place] != mark:
                _seen[place] = mark
                return False
        if self._size + size > self._max:
            self._evict(self._max - size)
        self._numbers[pair] = self._next - SIZE
        self._next += 1
        self._order.append(pair)
        self._size += size
        return True

    def _evict(self, size: int) -> None:
        """Drop the oldest until they hold no more than `size` octets."""
        order = self._order
        first = self._first
        while self._size > size:
            pair = order[first]
            order[first] = None
            first += 1
            del self._numbers[pair]
            self._size -= len(pair[0]) + len(pair[1]) + 32
        if first >= 64 and first * 2 >= len(order):
            del order[:first]
            first = 0
        self._first = first

    def _update(self, out: list[bytes]) -> None:
        """The size updates that begin the next block: the lowest size since the last one, then the one that holds."""
        if self._lowest < self._said and self._lowest < self._max:
            out.append(_integer(self._lowest, 5, 0x20))
            self._said = self._lowest
        if self._said != self._max:
            out.append(_integer(self._max, 5, 0x20))
            self._said = self._max
        self._lowest = self._max
