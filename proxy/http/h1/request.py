"""The server side of a connection: bytes become requests."""

from __future__ import annotations

import re
from typing import Final

from proxy import errors
from proxy.http import headers as names
from proxy.http.h1.fields import TOKEN, ProtocolError, check_line
from proxy.http.h1.reader import HEAD, RAW, Reader
from proxy.http.headers import tokens
from proxy.http.heads import CONNECT, RequestHead, RequestMessage
from proxy.http.target import is_connect_target, is_host

_MAX_EMPTY_LINES: Final = 4


class RequestReader(Reader):
    """The server side of one connection. `message` is the request under way, from its head on. When it is done, what
    follows waits until `next` asks for it, or `tunnel` takes it for something else than HTTP.

    `http10`: HTTP/1.0 is read, too, with `default_host` where it has no Host. `absolute`: so is the absolute form.
    `underscores`: a trailer whose name has one is kept."""

    __slots__ = ("_absolute", "_default_host", "_empty_lines", "_http10", "message")

    def __init__(
        self,
        max_size: int,
        max_count: int,
        http10: bool = True,
        default_host: bytes = b"",
        absolute: bool = True,
        underscores: bool = True,
    ) -> None:
        super().__init__(max_size, max_count)
        self._http10 = http10
        self._default_host = default_host
        self._absolute = absolute
        self._underscores = underscores
        self.message: RequestMessage | None = None
        self._empty_lines = 0

    def next(self) -> None:
        """Let go of the message, which is done, and read on. Raises ProtocolError."""
        self.message = None
        self._state = HEAD
        rest, at = self._rest, self._at
        if len(rest) > at:
            self._rest, self._at = b"", 0
            self._parse(rest, at)

    def tunnel(self) -> None:
        """The message, which is done, goes on as plain bytes: its body, until `end`."""
        message = self.message
        assert message is not None
        message.done = False
        self._reading = message
        self._state = RAW
        rest, at = self._rest, self._at
        self._rest, self._at = b"", 0
        self._parse(rest, at)

    def end(self) -> bool:
        """The client will send no more: True when that completes a message."""
        message = self.message
        if self._state != RAW or message is None:
            return False
        self._end()
        return True

    def _on_empty_line(self) -> None:
        # RFC 9112 §2.2: some old clients send one after a body.
        self._empty_lines += 1
        if self._empty_lines > _MAX_EMPTY_LINES:
            raise ProtocolError("empty lines where a request line is due (RFC 9112 §2.2)")

    def _on_partial_head(self, start: bytes) -> None:
        """Another protocol is told so at once, not when its client gives up."""
        if start != b"\r" and TOKEN.match(start) is None:
            raise ProtocolError(_other_protocol(start) or "a request line that begins with no method (RFC 9112 §3)")

    def _on_start_line(self, line: bytes) -> None:
        _split_start(line)

    def _on_head(self, block: bytes) -> None:
        lines = block.split(b"\r\n")
        method, target, minor = _split_start(lines[0]).groups()
        http10 = minor == b"0"
        if http10 and not self._http10:
            raise ProtocolError("the request is HTTP/1.0", errors.HTTP10_REFUSED)
        self._read_fields(lines)
        self._empty_lines = 0
        keep_alive = self._persistence(http10)
        head = RequestHead(method, target, b"", self._headers)
        head.http10 = http10
        head.keep_alive = keep_alive
        if self._content_length is not None or self._transfer_encoding is not None:
            head.length = self._framing(http10, 0)
        self._place(head, target)
        if method == b"CONNECT":
            if head.length:
                raise ProtocolError("content in a CONNECT request (RFC 9110 §9.3.6)")
            head.upgrade = CONNECT
        self.message = message = RequestMessage(head)
        self._frame(message, head.length)

    def _place(self, head: RequestHead, target: bytes) -> None:
        """The fields that were lifted out, each to its attribute."""
        for kind, value in self._special:
            if kind == names.TRACEPARENT:
                # Two of them: the trace is broken, restart it (W3C Trace Context §3.2).
                head.traceparent = value if head.traceparent is None else b""
            elif kind == names.REQUEST_ID:
                head.request_id = value or None
            elif kind == names.FORWARDED_PROTO:
                head.forwarded_proto = value
            else:
                self._place_rare(head, kind, value)
        host = self._host
        if host is None:
            if not head.http10:
                raise ProtocolError("no host (RFC 9112 §3.2)")
            host = self._default_host
        if target[0] == 47 and head.method != b"CONNECT":  # "/": origin-form
            head.authority = _checked(host)
            if b"#" in target:
                raise ProtocolError("a fragment in the request target (RFC 9112 §3.2)")
        else:
            if not self._absolute and b"://" in target:
                raise ProtocolError("an absolute request target", errors.ABSOLUTE_URL_REFUSED)
            _address(head, target, _checked(host))

    def _place_rare(self, head: RequestHead, kind: int, value: bytes) -> None:
        if kind == names.CLIENT_CERT:
            head.client_cert = value if head.client_cert is None else head.client_cert + b"," + value
        elif kind == names.EXPECT:
            if value.lower() != b"100-continue":  # RFC 9110 §10.1.1: nothing else is defined
                raise ProtocolError("an expectation other than 100-continue", errors.EXPECTATION_FAILED)
            head.expect_continue = not head.http10
        elif kind == names.GRPC_TIMEOUT:
            head.grpc_timeout = value
        elif kind == names.TE:
            head.te_trailers = b"trailers" in tokens(value)
        elif kind == names.SERVER:
            head.headers.append((b"server", value))
        elif kind == names.DATE:
            head.headers.append((b"date", value))
        elif kind == names.UPGRADE and not head.http10 and not head.length and self._asks_upgrade():
            # With a body it would have to wait for its end; a server may always ignore it (RFC 9110 §7.8).
            head.upgrade = value.lower() if head.upgrade == b"" else head.upgrade + b"," + value.lower()


def _split_start(start: bytes) -> re.Match[bytes]:
    """Method, target and version of a request line."""
    found = _REQUEST_LINE.fullmatch(start)
    if found is None:
        raise ProtocolError(_what_is_wrong(start))
    return found


_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
"""RFC 9112 §3: single spaces, a token, characters that a URI may have or that browsers send as they are."""


def _what_is_wrong(start: bytes) -> str:
    other = _other_protocol(start)
    if other:
        return other
    check_line(start)
    parts = start.split(b" ")
    if len(parts) != 3:
        return "a request line that is not three words (RFC 9112 §3)"
    if TOKEN.fullmatch(parts[0]) is None:
        return "a method that is no token (RFC 9110 §9.1)"
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return "a version other than HTTP/1.1 and HTTP/1.0 (RFC 9112 §2.3)"
    return "a request target with characters that no URI has (RFC 3986 §2)"


def _address(head: RequestHead, target: bytes, host: bytes) -> None:
    """The forms of a request target that are not origin-form (RFC 9112 §3.2)."""
    scheme, found, rest = target.partition(b"://")
    if head.method == b"CONNECT":
        host = target
        if not is_connect_target(target):
            raise ProtocolError("a CONNECT target that is not host:port (RFC 9110 §9.3.6)")
    elif found and scheme.lower() in (b"http", b"https"):
        # absolute-form: its authority wins over Host (RFC 9112 §3.2.2).
        cut = min([at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0], default=len(rest))
        host, path = rest[:cut], rest[cut:]
        if not host:
            raise ProtocolError("an absolute request target without authority (RFC 9110 §4.2.1)")
        if path == b"" and head.method == b"OPTIONS":
            head.target = b"*"  # RFC 9112 §3.2.4
        else:
            head.target = path if path[:1] == b"/" else b"/" + path
    elif target != b"*" or head.method != b"OPTIONS":
        raise ProtocolError("a request target of no known form (RFC 9112 §3.2)")
    if b"#" in head.target:
        raise ProtocolError("a fragment in the request target (RFC 9112 §3.2)")
    head.authority = _checked(host)


def _checked(host: bytes) -> bytes:
    if not is_host(host):
        raise ProtocolError("no valid host (RFC 9112 §3.2)")
    return host


def _other_protocol(data: bytes) -> str:
    """What a client speaks instead, by the first bytes of what could not be read; empty if that is not known."""
    if data.startswith(b"PRI * HTTP/2.0"):  # RFC 9113 §3.4
        return "HTTP/2 is off on this port, or comes in the middle of HTTP/1.1"
    if data.startswith(b"\x16\x03"):  # a TLS handshake record (RFC 8446 §5.1)
        return "this port speaks plain HTTP, and the client TLS"
    return ""


def no_message() -> RequestMessage:
    """Stands for a request that could not be read: what its error reply and its access-log record are made from."""
    head = RequestHead(b"", b"", b"", [])
    head.keep_alive = False
    message = RequestMessage(head)
    message.done = True
    return message
