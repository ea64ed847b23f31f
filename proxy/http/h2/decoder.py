"""HPACK decoding (RFC 7541): header blocks to fields.

The dynamic table holds fields that were checked and classified when they came, so a reference to one costs a lookup.
"""

from __future__ import annotations

from typing import Final

from proxy.http.h2 import huffman, static_table
from proxy.http.h2.fields import NAMES, Name, make_field, read_name
from proxy.http.h2.static_table import FIELDS, PAIRS, SIZE
from proxy.http.headers import Field

_MAX_INTEGER: Final = 1 << 31
_MAX_CONTINUATION: Final = 5
_GONE: Final = Field((b"", b""), 0)
_COMPACT: Final = 64
"""Evicted entries that may lie in front of the table before the list is shortened."""
_COMMON: Final = frozenset((
    b":authority", b":path", b":status", b"content-length", b"content-type", b"user-agent", b"accept",
))  # fmt: skip
_MAX_VALUES: Final = 64
_values: Final[list[dict[bytes, Field] | None]] = [{} if name in _COMMON else None for name, _ in PAIRS]
"""Per name of the static table, fields by how their value was written. Many encoders never index :path and some others,
though they send them with every message: what was decoded and checked once need not be again. Short ones, and bounded.
"""


class HpackError(Exception):
    """A header block that cannot be decoded: the connection's tables are lost (COMPRESSION_ERROR, RFC 9113 §4.3)."""


class Decoder:
    """One direction of a connection. `max_table_size` is our SETTINGS_HEADER_TABLE_SIZE, in octets."""

    __slots__ = ("_at", "_entries", "_first", "_limit", "_max", "_required", "_size", "overflow", "sensitive")

    def __init__(self, max_table_size: int) -> None:
        self._entries: list[Field] = []  # the newest last
        self._first = 0  # of _entries: those before it were evicted
        self._size = 0
        self._max = max_table_size  # what the peer's encoder says that it uses
        self._limit = max_table_size  # what it may use
        self._required = -1  # the size that its next block must begin with, at most; -1: it need not
        self._at = 0
        self.overflow = False
        """The last block held more than was allowed: the fields are not all of it."""
        self.sensitive: list[bytes] = []
        """Names of the last block's fields that must never be indexed, here or further on (RFC 7541 §6.2.3)."""

    def limit(self, size: int) -> None:
        """The peer has acknowledged our SETTINGS_HEADER_TABLE_SIZE (RFC 7541 §4.2)."""
        self._limit = size
        if size < self._max and (self._required < 0 or size < self._required):
            self._required = size

    def decode(self, block: bytes, max_size: int, max_count: int) -> list[Field]:
        """The fields of one whole block. Beyond `max_size` octets (RFC 7541 §4.1) or `max_count` fields none are kept,
        but the table goes on as the peer's does. Raises HpackError.
        """
        fields: list[Field] = []
        self.overflow = False
        if self.sensitive:
            self.sensitive = []
        at = 0
        end = len(block)
        if self._required >= 0 or (end > 0 and block[0] & 0xE0 == 0x20):
            at = self._updates(block)
        left = max_size
        room = max_count
        while at < end:
            octet = block[at]
            at += 1
            if octet >= 0x80:  # §6.1
                index = octet & 0x7F
                if index == 0x7F:
                    index = self._integer(block, at, 0x7F)
                    at = self._at
                field = self._entry(index) if index > SIZE or index == 0 else FIELDS[index - 1]
            else:
                self._at = at
                field = self._literal(block, octet)
                at = self._at
            left -= field.size
            room -= 1
            if left < 0 or room < 0:
                self.overflow = True
                continue
            fields.append(field)
            if 0x10 <= octet < 0x20:  # §6.2.3
                self.sensitive.append(field.pair[0])
        return fields

    def _entry(self, index: int) -> Field:
        place = len(self._entries) + SIZE - index
        if index == 0 or place < self._first:
            raise HpackError(f"index {index} is in no table (RFC 7541 §2.3.3)")
        return self._entries[place]

    def _literal(self, block: bytes, octet: int) -> Field:
        """The literal that begins with `octet`, before _at (§6.2)."""
        if octet >= 0x40:
            mask = 0x3F
        elif octet >= 0x20:
            raise HpackError("a table size update that does not begin a block (RFC 7541 §4.2)")
        else:
            mask = 0x0F
        index = octet & mask
        if index == mask:
            index = self._integer(block, self._at, mask)
        if 0 < index <= SIZE:
            name = static_table.NAMES[index - 1]
            values = _values[index - 1]
            if values is not None and octet < 0x10:
                return self._common(block, name, values)
        else:
            text: bytes = self._string(block, True) if index == 0 else self._entry(index).pair[0]
            name = NAMES.get(text) or read_name(text)
        field = make_field(name, self._string(block, False))
        if octet >= 0x40:
            self._insert(field)
        return field

    def _common(self, block: bytes, name: Name, values: dict[bytes, Field]) -> Field:
        """The field of `name` whose value is at _at."""
        at = self._at
        end = at + 1 + (block[at] & 0x7F) if at < len(block) else at
        written = block[at:end]
        field = values.get(written)
        if field is not None:
            self._at = end
            return field
        field = make_field(name, self._string(block, False))
        if self._at == end:  # its length is one octet, so it is less than 127
            if len(values) >= _MAX_VALUES:
                values.clear()
            values[written] = field
        return field

    def _string(self, block: bytes, names: bool) -> bytes:
        """The string literal at _at (§5.2)."""
        at = self._at
        if at >= len(block):
            raise HpackError("a string that is missing (RFC 7541 §5.2)")
        octet = block[at]
        length = octet & 0x7F
        at += 1
        if length == 0x7F:
            length = self._integer(block, at, 0x7F)
            at = self._at
        end = at + length
        if end > len(block):
            raise HpackError("a string that is longer than its block (RFC 7541 §5.2)")
        self._at = end
        value = block[at:end]
        if octet < 0x80:
            return value
        decoded = huffman.decode_name(value) if names else huffman.decode(value)
        if decoded is None:
            raise HpackError("EOS or wrong padding in a Huffman string (RFC 7541 §5.2)")
        return decoded

    def _integer(self, block: bytes, at: int, prefix: int) -> int:
        """The integer whose prefix was full, and that goes on at `at`; _at is behind it then (§5.1)."""
        value = prefix
        shift = 0
        while at < len(block) and shift < 7 * _MAX_CONTINUATION:
            octet = block[at]
            at += 1
            value += (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                if value > _MAX_INTEGER:
                    break
                self._at = at
                return value
        raise HpackError("an integer that is too large or not complete (RFC 7541 §5.1)")

    # ---- the dynamic table

    def _updates(self, block: bytes) -> int:
        """The table size updates that begin a block. Returns where they end (§6.3)."""
        at = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            size = block[at] & 0x1F
            at += 1
            if size == 0x1F:
                size = self._integer(block, at, 0x1F)
                at = self._at
            if self._required >= 0:
                if size > self._required:
                    raise HpackError("a table size above the limit that we lowered (RFC 7541 §4.2)")
                self._required = -1
            if size > self._limit:
                raise HpackError("a table size above our limit (RFC 7541 §6.3)")
            self._max = size
            self._evict(size)
        if self._required >= 0:
            raise HpackError("no table size update after we lowered the limit (RFC 7541 §4.2)")
        return at

    def _insert(self, field: Field) -> None:
        """A field that does not fit empties the table (§4.4)."""
        if self._size + field.size > self._max:
            self._evict(self._max - field.size)
            if field.size > self._max:
                return
        self._entries.append(field)
        self._size += field.size

    def _evict(self, size: int) -> None:
        """Drop the oldest until they hold no more than `size` octets."""
        entries = self._entries
        first = self._first
        held = self._size
        while held > size and first < len(entries):
            held -= entries[first].size
            entries[first] = _GONE
            first += 1
        if first == len(entries):
            entries.clear()
            first = 0
        elif first >= _COMPACT and first * 2 >= len(entries):
            del entries[:first]
            first = 0
        self._first = first
        self._size = held
