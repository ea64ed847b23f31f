"""The server side of a connection: bytes become requests."""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from proxy.http import headers as names
from proxy.http.h1.reader import SLICE, ProtocolError, Reader
from proxy.http.headers import tokens
from proxy.http.heads import RequestHead, RequestMessage


class RequestReader(Reader):
    """The server side of one connection. Complete and growing requests queue up in `messages`, oldest first."""

    __slots__ = ("_message", "_parser", "_url", "messages")

    def __init__(self, max_size: int, max_count: int) -> None:
        super().__init__(max_size, max_count)
        self.messages: deque[RequestMessage] = deque()
        self._message: RequestMessage | None = None
        self._url: bytes | None = None
        self._parser: HttpRequestParser | None = HttpRequestParser(self)

    @property
    def in_head(self) -> bool:
        """Whether a request's head has begun and is not complete."""
        return self._in_head and self._fed > 0

    def feed(self, data: bytes) -> None:
        """Parse what arrived. Raises ProtocolError; messages completed before the error stay queued."""
        if self._in_head and len(data) > SLICE:
            for start in range(0, len(data), SLICE):
                self._feed(data[start : start + SLICE])
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            raise ProtocolError("data after the end of the connection")
        self._fed += len(data)
        rest: bytes | memoryview = data
        while rest:
            try:
                parser.feed_data(rest)
                break
            except HttpParserUpgrade as upgrade:
                # llhttp stops at every Upgrade field. Without a route that asks for it the field is dropped and the
                # message is an ordinary request (RFC 9110 §7.8).
                rest = memoryview(rest)[upgrade.args[0] :]
            except HttpParserInvalidMethodError as error:
                raise ProtocolError(_other_protocol(data) or f"unknown method: {error}") from None
            except HttpParserError as error:
                context = error.__context__
                if isinstance(context, ProtocolError):
                    raise context from None
                raise ProtocolError(_other_protocol(data) or str(error)) from None
        if self._fed > self._max_size:
            self._check_fed()

    def close(self) -> None:
        """Break the cycle between reader and parser."""
        self._parser = None

    # ---- httptools callbacks

    def on_url(self, part: bytes) -> None:
        self._url = part if self._url is None else self._url + part

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self._check_size()
        version = parser.get_http_version()
        http10 = version == "1.0"
        if not http10 and version != "1.1":
            raise ProtocolError(f"HTTP version {version} (RFC 9112 §2.3)")
        keep_alive = self._persistence(http10)
        url = self._url or b""
        head = RequestHead(parser.get_method(), url, b"", self._headers)
        head.http10 = http10
        head.keep_alive = keep_alive
        if self._content_length is not None or self._transfer_encoding is not None:
            head.length = self._framing(http10, 0)
        host: bytes | None = None
        for kind, value in self._special:
            if kind == names.HOST:
                if host is not None:
                    raise ProtocolError("more than one host (RFC 9112 §3.2)")
                host = value
            else:
                self._note(head, kind, value)
        self._address(head, url, host, http10)
        if parser.should_upgrade() and head.length != 0:
            raise ProtocolError("an upgrade request with a body")
        self._message = message = RequestMessage(head)
        self._trailers = message.trailers
        self._in_head = False
        self._fed = 0
        self.messages.append(message)

    def on_body(self, chunk: bytes) -> None:
        message = self._message
        assert message is not None
        message.body.append(chunk)
        self._fed = 0

    def on_message_complete(self) -> None:
        message = self._message
        assert message is not None
        message.done = True
        self._message = None
        self._url = None
        self._reset()

    @staticmethod
    def _note(head: RequestHead, kind: int, value: bytes) -> None:
        if kind == names.TRACEPARENT:
            # Two of them: the trace is broken, restart it (W3C Trace Context §3.2).
            head.traceparent = value if head.traceparent is None else b""
        elif kind == names.REQUEST_ID:
            head.request_id = value
        elif kind == names.FORWARDED_PROTO:
            head.forwarded_proto = value
        elif kind == names.CLIENT_CERT:
            head.client_cert = value if head.client_cert is None else head.client_cert + b"," + value
        elif kind == names.EXPECT:
            if value.lower() != b"100-continue":  # RFC 9110 §10.1.1: nothing else is defined
                raise ProtocolError("an expectation other than 100-continue")
            head.expect_continue = not head.http10
        elif kind == names.TE:
            head.te_trailers = b"trailers" in tokens(value)
        elif kind == names.SERVER:
            head.headers.append((b"server", value))
        elif kind == names.DATE:
            head.headers.append((b"date", value))

    @staticmethod
    def _address(head: RequestHead, url: bytes, host: bytes | None, http10: bool) -> None:
        """The four forms of a request target (RFC 9112 §3.2)."""
        if url[:1] == b"/":
            if host is None:
                if not http10:
                    raise ProtocolError("no host (RFC 9112 §3.2)")
                host = b""
        elif url[:7].lower() == b"http://" or url[:8].lower() == b"https://":
            # absolute-form: its authority wins over Host (RFC 9112 §3.2.2).
            rest = url[url.index(b"//") + 2 :]
            cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
            if host is None and not http10:
                raise ProtocolError("no host (RFC 9112 §3.2)")
            host, target = rest[:cut], rest[cut:]
            head.target = target if target[:1] == b"/" else b"/" + target
            if not host:
                raise ProtocolError("an absolute request target without authority (RFC 9110 §4.2.1)")
        elif head.method == b"CONNECT":
            host = url
        elif url == b"*" and head.method == b"OPTIONS":
            host = host or b""
        else:
            raise ProtocolError("a request target of no known form (RFC 9112 §3.2)")
        if host not in _hosts:
            _check_host(host)
        if b"#" in head.target:
            raise ProtocolError("a fragment in the request target (RFC 9112 §3.2)")
        head.authority = host


def _other_protocol(data: bytes) -> str:
    """What a client speaks instead, by the first bytes of what could not be read; empty if that is not known."""
    if data.startswith(b"PRI * HTTP/2.0"):  # RFC 9113 §3.4
        return "HTTP/2 is not supported yet"
    if data.startswith(b"\x16\x03"):  # a TLS handshake record (RFC 8446 §5.1)
        return "this port speaks plain HTTP, and the client TLS"
    return ""


def _check_host(host: bytes) -> None:
    """RFC 3986 §3.2.2 and §3.2.3, without userinfo (RFC 9110 §4.2.4) and without commas, which would make a list of
    it. Hosts that passed are remembered, within a bound."""
    if _HOST.fullmatch(host) is None:
        raise ProtocolError("no valid host (RFC 9112 §3.2)")
    if len(_hosts) < _MAX_HOSTS and len(host) <= 256:
        _hosts.add(host)


_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?")
_MAX_HOSTS: Final = 4096
_hosts: set[bytes] = set()


def no_message() -> RequestMessage:
    """Stands for a request that could not be read: what its error reply and its access-log record are made from."""
    head = RequestHead(b"", b"", b"", [])
    head.keep_alive = False
    message = RequestMessage(head)
    message.done = True
    return message
