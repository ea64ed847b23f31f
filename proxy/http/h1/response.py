"""The client side of a connection: bytes become the response to the request that is under way."""

from __future__ import annotations

import re
from typing import Final

from proxy.http import headers as names
from proxy.http.h1.fields import ProtocolError, check_line
from proxy.http.h1.reader import DONE, HEAD, RAW, Reader
from proxy.http.headers import tokens
from proxy.http.heads import CHUNKED, CONNECT, NO_UPGRADE, UNTIL_CLOSE, ResponseHead, ResponseMessage

_MAX_INTERIM: Final = 100
_STATUS_LINE: Final = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2})(?: (.*))?", re.DOTALL)
"""RFC 9112 §4. The space before an empty reason is often left out, and nothing can be read into that."""
# Fields that are lifted out of requests but are ordinary in responses.
_RESPONSE_FIELDS: Final = {
    names.DATE: b"date",
    names.REQUEST_ID: b"x-request-id",
    names.TRACEPARENT: b"traceparent",
    names.FORWARDED_PROTO: b"x-forwarded-proto",
    names.CLIENT_CERT: b"x-forwarded-client-cert",
    names.EXPECT: b"expect",
    names.TE: b"te",
    names.GRPC_TIMEOUT: b"grpc-timeout",
}
_MAX_STATUS_LINES: Final = 64
_status_lines: dict[bytes, tuple[bool, int, bytes]] = {}


class ResponseReader(Reader):
    """The client side of one connection: one response at a time, in `message` from its head on.

    Call `expect` before each request. Informational responses (RFC 9110 §15.2) go to `interim`.
    """

    __slots__ = ("_interims", "_method", "_upgrade", "excess", "interim", "message")

    def __init__(self, max_size: int, max_count: int) -> None:
        super().__init__(max_size, max_count)
        self.message: ResponseMessage | None = None
        self.interim: list[ResponseHead] = []
        self._interims = 0
        self._method = b""
        self._upgrade = NO_UPGRADE
        self._state = DONE
        self.excess = False

    def expect(self, method: bytes, upgrade: bytes) -> None:
        """The next response answers a request with `method`, which asks for the protocol `upgrade`."""
        self.message = None
        self._interims = 0
        self._method = method
        self._upgrade = upgrade
        self._state = HEAD

    def feed(self, data: bytes) -> None:
        """Read what arrived. Raises ProtocolError. Bytes that answer no request set `excess`: what is complete stands,
        but the connection says more than it was asked, and nothing on it can be believed after that."""
        super().feed(data)
        if self._rest:
            self._rest = b""
            self.excess = True

    def end(self) -> bool:
        """The peer closed: True when that completes the message (RFC 9112 §6.3, no length), else it is cut off."""
        if self._state != RAW:
            return False
        self._end()
        return True

    def _on_partial_head(self, start: bytes) -> None:
        if not start.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(start):
            raise ProtocolError("a response that does not begin with HTTP/1. (RFC 9112 §4)")

    def _on_start_line(self, line: bytes) -> None:
        _read_status_line(line)

    def _on_head(self, block: bytes) -> None:
        lines = block.split(b"\r\n")
        http10, status, reason = _status_lines.get(lines[0]) or _read_status_line(lines[0])
        self._read_fields(lines)
        keep_alive = self._persistence(http10)
        head = ResponseHead(status, reason, self._headers)
        if status < 200:
            if status == 101:
                self._switch(head)
            else:
                if self._framing(http10, 0):
                    raise ProtocolError("content in an interim response (RFC 9110 §15.2)")
                self._interims += 1
                if self._interims > _MAX_INTERIM:
                    raise ProtocolError(f"more than {_MAX_INTERIM} interim responses")
                self.interim.append(head)
            return
        head.keep_alive = keep_alive
        head.length = length = self._framing(http10, UNTIL_CLOSE)
        for kind, value in self._special:
            if kind == names.UNSENT:
                head.unsent = value
            elif kind == names.SERVER:
                head.server = value
            elif kind in _RESPONSE_FIELDS:
                if kind == names.DATE:
                    head.dated = True
                head.headers.append((_RESPONSE_FIELDS[kind], value))
        if self._host is not None:  # means nothing here
            head.headers.append((b"host", self._host))
        self.message = message = ResponseMessage(head)
        if self._method == b"HEAD":
            length = 0
        elif self._upgrade == CONNECT and status < 300:  # RFC 9112 §6.3: a tunnel, whatever the fields say
            head.upgrade = CONNECT
            head.length = length = UNTIL_CLOSE
        elif status == 304:  # RFC 9112 §6.3: no body; its fields describe that of the 200
            if length == CHUNKED:
                head.length = UNTIL_CLOSE
            length = 0
        elif status == 204:
            if length == CHUNKED or length > 0:
                raise ProtocolError("content in a 204 response (RFC 9112 §6.1, RFC 9110 §8.6)")
            length = 0
        if length == UNTIL_CLOSE:
            head.keep_alive = False
        self._frame(message, length)

    def _switch(self, head: ResponseHead) -> None:
        """101 (RFC 9110 §15.2.2): the upstream goes on in the protocol that the request asked for."""
        chosen = b",".join([value.lower() for kind, value in self._special if kind == names.UPGRADE])
        if self._upgrade in (NO_UPGRADE, CONNECT) or not chosen or not self._asks_upgrade():
            raise ProtocolError("an upgrade that was not asked for (RFC 9110 §7.8)")
        if not set(tokens(chosen)) <= set(tokens(self._upgrade)):
            raise ProtocolError("an upgrade to another protocol than was asked for (RFC 9110 §7.8)")
        head.upgrade = chosen
        head.length = UNTIL_CLOSE
        head.keep_alive = False
        self.message = message = ResponseMessage(head)
        self._frame(message, UNTIL_CLOSE)


def _read_status_line(line: bytes) -> tuple[bool, int, bytes]:
    check_line(line)
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise ProtocolError("a status line that is none (RFC 9112 §4)")
    read = found[1] == b"HTTP/1.0", int(found[2]), found[3] or b""
    if len(_status_lines) < _MAX_STATUS_LINES and len(line) <= 64:
        _status_lines[line] = read
    return read
