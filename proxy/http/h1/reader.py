"""What reading requests and reading responses share: where a head ends, how its fields frame a body, and the body.

The reader is a state machine over bytes: any split of the same bytes reads the same. Nothing is repaired: RFC 9112
§2.2 and §6.3 leave a proxy the choice, and the choice here is to refuse. One message is read at a time; what follows
a complete message waits, unparsed.
"""

from __future__ import annotations

import re
from typing import Final

from proxy import errors
from proxy.http import headers as names
from proxy.http.h1.fields import LINES, TOKEN, ProtocolError, check_line, read_line
from proxy.http.headers import Headers, tokens
from proxy.http.heads import CHUNKED, Message

# The states. A reader begins in HEAD; after a message it is DONE until its owner asks for the next one.
HEAD: Final = 0
FIXED: Final = 1  # `_left` bytes of content
CHUNK_SIZE: Final = 2
CHUNK: Final = 3  # `_left` bytes of a chunk's data
CHUNK_END: Final = 4  # the CRLF behind it
TRAILERS: Final = 5
RAW: Final = 6  # content until the connection ends
DONE: Final = 7

_TOKEN: Final = TOKEN.pattern
_EXTENSION: Final = rb"""[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|"(?:[^"\\]|\\.)*"))?""" % (_TOKEN, _TOKEN)
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:%b)*" % _EXTENSION)
"""RFC 9112 §7.1, and §7.1.1 for the extensions, which are dropped: a proxy must not pass on what it does not know."""
_MAX_CHUNK_LINE: Final = 4096
_MAX_EXTENSIONS: Final = 16 * 1024
"""Bytes of chunk extensions in one message."""
_SMALL: Final = 1024
_ALONE: Final = {b"keep-alive": True, b"Keep-Alive": True, b"close": False, b"Close": False}
"""What nearly every Connection field is, and whether the connection persists then."""
_OWN_TOKENS: Final = frozenset((b"close", b"keep-alive", b"te", b"upgrade", b"trailer", b"transfer-encoding"))


class Reader:
    """One direction of one connection. Subclasses make a message of a head: `_on_head`."""

    __slots__ = (
        "_at",
        "_connection",
        "_content_length",
        "_extensions",
        "_first_line",
        "_headers",
        "_host",
        "_left",
        "_max_count",
        "_max_size",
        "_partial",
        "_reading",
        "_rest",
        "_scanned",
        "_special",
        "_state",
        "_transfer_encoding",
        "_underscores",
    )

    def __init__(self, max_size: int, max_count: int) -> None:
        self._max_size = max_size
        self._max_count = max_count
        self._underscores = True  # whether names of trailers may have any
        self._state = HEAD
        self._reading: Message | None = None  # the message whose body is being read
        self._left = 0
        self._partial = bytearray()  # a head, line or trailer section that is not complete
        self._scanned = 0  # how much of it has been searched for its end
        self._first_line = -1  # where the start line of an incomplete head ends, once it does
        self._rest = b""  # what follows a complete message, from `_at` on
        self._at = 0
        self._extensions = 0
        self._headers: Headers = []
        self._special: list[tuple[int, bytes]] = []
        self._host: bytes | None = None
        self._connection: bytes | None = None
        self._content_length: bytes | None = None
        self._transfer_encoding: bytes | None = None

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self._state == HEAD and len(self._partial) > 0

    @property
    def complete(self) -> bool:
        """Whether nothing has begun that more bytes must end."""
        state = self._state
        return state == DONE or (state == HEAD and not self._partial)

    @property
    def waiting(self) -> bool:
        """Whether bytes wait behind a complete message."""
        return len(self._rest) > self._at

    def feed(self, data: bytes) -> None:
        """Read what arrived. Raises ProtocolError."""
        if self._state == DONE:
            self._rest = self._rest[self._at :] + data if self._rest else data
            self._at = 0
        elif not self._partial:
            self._parse(data, 0)
        else:
            partial = self._partial
            partial += data
            if self._partial_is_whole():
                whole = bytes(partial)
                self._partial = bytearray()
                self._scanned = 0
                self._parse(whole, 0)

    def _on_head(self, block: bytes) -> None:
        """A head, without the empty line behind it. Sets what follows: `_frame` or `_end`."""
        raise NotImplementedError

    def _on_empty_line(self) -> None:
        """An empty line where a head is due."""
        raise ProtocolError("an empty line where a head is due (RFC 9112 §2.2)")

    def _on_partial_head(self, start: bytes) -> None:
        """The first bytes of a head whose start line is not complete: refuse at once what cannot become one."""
        raise NotImplementedError

    def _on_start_line(self, line: bytes) -> None:
        """The start line of a head that is not complete: refuse at once what is none."""
        raise NotImplementedError

    # ---- the state machine

    def _parse(self, data: bytes, at: int) -> None:
        size = len(data)
        while at < size:
            state = self._state
            if state == HEAD:
                at = self._read_head(data, at)
            elif state in (FIXED, CHUNK):
                at = self._read_content(data, at)
            elif state == CHUNK_SIZE:
                at = self._read_chunk_size(data, at)
            elif state == CHUNK_END:
                at = self._read_chunk_end(data, at)
            elif state == TRAILERS:
                at = self._read_trailers(data, at)
            elif state == RAW:
                assert self._reading is not None
                self._reading.body.append(data[at:] if at else data)
                at = size
            else:
                self._rest, self._at = data, at
                return

    def _read_head(self, data: bytes, at: int) -> int:
        if data[at] == 13 and data.startswith(b"\r\n", at):
            self._on_empty_line()
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return self._keep(data, at)
        if end - at > self._max_size:
            raise self._head_too_large(data.find(b"\r\n", at) - at)
        self._on_head(data[at:end])
        return end + 4

    def _read_content(self, data: bytes, at: int) -> int:
        message, left, size = self._reading, self._left, len(data)
        assert message is not None
        if size - at < left:
            message.body.append(data[at:] if at else data)
            self._left = left - size + at
            return size
        end = at + left
        chunk = data[at:end] if at or end < size else data
        body = message.body
        if left < _SMALL and body and len(body[-1]) < _SMALL:
            body[-1] += chunk  # many tiny chunks must not become as many objects
        else:
            body.append(chunk)
        self._left = 0
        if self._state == FIXED:
            self._end()
        else:
            self._state = CHUNK_END
        return end

    def _read_chunk_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        if end < 0:
            return self._keep(data, at)
        line = data[at:end]
        check_line(line)
        found = _CHUNK_LINE.fullmatch(line) if len(line) <= _MAX_CHUNK_LINE else None
        if found is None:
            raise ProtocolError("a chunk size that is no hexadecimal number (RFC 9112 §7.1)")
        digits = found[1]
        self._extensions += len(line) - len(digits)
        if self._extensions > _MAX_EXTENSIONS:
            raise ProtocolError(f"more than {_MAX_EXTENSIONS} bytes of chunk extensions (RFC 9112 §7.1.1)")
        self._left = int(digits, 16)
        self._state = CHUNK if self._left else TRAILERS
        return end + 2

    def _read_chunk_end(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            self._state = CHUNK_SIZE
            return at + 2
        if end != b"\r":
            raise ProtocolError("a chunk longer than its size (RFC 9112 §7.1)")
        return self._keep(data, at)

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._end()
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return self._keep(data, at)
        if end - at > self._max_size:
            raise self._trailers_too_large()
        lines = data[at:end].split(b"\r\n")
        if len(lines) > self._max_count:
            raise self._trailers_too_large()
        message = self._reading
        assert message is not None
        for line in lines:
            field = read_line(line)
            if field.kind in (names.CONTENT_LENGTH, names.TRANSFER_ENCODING):
                raise ProtocolError("a trailer that would frame the message (RFC 9110 §6.5.1)")
            # A field that routes or authenticates is not believed that late.
            name = field.pair[0]
            if field.kind == names.PLAIN and name not in names.NO_TRAILERS and (self._underscores or b"_" not in name):
                message.trailers.append(field.pair)
        self._end()
        return end + 4

    def _frame(self, message: Message, length: int) -> None:
        """A head was read: `message` has a body of `length` (bytes, CHUNKED or UNTIL_CLOSE)."""
        self._reading = message
        if length > 0:
            self._left = length
            self._state = FIXED
        elif length == 0:
            self._end()
        elif length == CHUNKED:
            self._extensions = 0
            self._state = CHUNK_SIZE
        else:
            self._state = RAW

    def _end(self) -> None:
        assert self._reading is not None
        self._reading.done = True
        self._reading = None
        self._state = DONE

    # ---- what is not complete

    def _keep(self, data: bytes, at: int) -> int:
        self._first_line = -1
        self._partial += data[at:] if at else data
        whole = self._partial_is_whole()
        assert not whole, "it was searched for its end, and there was none"
        return len(data)

    def _partial_is_whole(self) -> bool:
        """Whether parsing can go on with `_partial`. Each byte is looked at once, however slowly they come."""
        partial, scanned, state = self._partial, self._scanned, self._state
        self._scanned = size = len(partial)
        if state == CHUNK_END:
            return size >= 2
        if state == CHUNK_SIZE:
            if partial.find(b"\r\n", max(scanned - 1, 0)) >= 0:
                return True
            if size > _MAX_CHUNK_LINE + 1 or b"\n" in partial:
                raise ProtocolError("a chunk size that is no hexadecimal number (RFC 9112 §7.1)")
            return False
        if partial.find(b"\r\n\r\n", max(scanned - 3, 0)) >= 0:
            return True
        if partial[:2] == b"\r\n":
            return True
        newline = partial.find(b"\n", scanned)
        while newline >= 0:
            if newline == 0 or partial[newline - 1] != 13:
                raise ProtocolError("a line that ends in LF alone (RFC 9112 §2.2)")
            newline = partial.find(b"\n", newline + 1)
        if state == HEAD:
            first = self._first_line
            if first < 0:
                first = self._first_line = partial.find(b"\r\n", max(scanned - 1, 0))
            if size > self._max_size + 3:
                raise self._head_too_large(first)
            if first < 0:
                if not scanned:
                    self._on_partial_head(bytes(partial[:64]))
            elif scanned <= first + 1:
                self._on_start_line(bytes(partial[:first]))
        elif size > self._max_size + 3:
            raise self._trailers_too_large()
        return False

    def _head_too_large(self, first_line: int) -> ProtocolError:
        if not 0 <= first_line <= self._max_size:
            return ProtocolError(f"a start line of more than {self._max_size} bytes", errors.URI_TOO_LONG)
        return ProtocolError(f"header section of more than {self._max_size} bytes", errors.HEADERS_TOO_LARGE)

    def _trailers_too_large(self) -> ProtocolError:
        return ProtocolError(f"more trailers than {self._max_size} bytes or {self._max_count} fields")

    # ---- fields

    def _read_fields(self, lines: list[bytes]) -> None:
        """The lines behind the start line: ordinary fields to `_headers`, the hop's own to where they belong."""
        if len(lines) - 1 > self._max_count:  # RFC 6585 §5
            raise ProtocolError(f"more than {self._max_count} header fields", errors.HEADERS_TOO_LARGE)
        headers: Headers = []
        self._headers = headers
        if self._special:
            self._special = []
        self._host = None
        self._connection = None
        self._content_length = None
        self._transfer_encoding = None
        for index in range(1, len(lines)):
            line = lines[index]
            field = LINES.get(line)
            if field is None:
                field = read_line(line)
            if field.kind == names.PLAIN:
                headers.append(field.pair)
            else:
                self._lift(field.kind, field.pair[1])

    def _lift(self, kind: int, value: bytes) -> None:
        if kind == names.HOST:
            if self._host is not None:
                raise ProtocolError("more than one host (RFC 9112 §3.2)")
            self._host = value
        elif kind == names.CONTENT_LENGTH:
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
        """Whether the connection outlives the message (RFC 9112 §9.3). Drops the ordinary fields that Connection
        names (RFC 9110 §7.6.1); what the mesh itself relies on cannot be taken away like that."""
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

    def _asks_upgrade(self) -> bool:
        """Whether Connection names upgrade, without which an Upgrade field means nothing (RFC 9110 §7.8)."""
        return self._connection is not None and b"upgrade" in tokens(self._connection)
