"""HTTP/1.1 in: httptools callbacks become messages. The strictness is llhttp's own plus the checks below.

Both readers are fed whatever the socket gave and keep what is complete; a ProtocolError ends the connection. They
never repair: RFC 9112 §2.2 and §6.3 leave a proxy the choice, and the choice here is to refuse.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from proxy.http import headers as names
from proxy.http.headers import SPELLINGS, Headers, classify, tokens
from proxy.http.heads import CHUNKED, UNTIL_CLOSE, RequestHead, RequestMessage, ResponseHead, ResponseMessage

_OWN_TOKENS: Final = frozenset((b"close", b"keep-alive", b"te", b"upgrade", b"trailer", b"transfer-encoding"))
_NO_CONTENT: Final = frozenset((204, 304))
_SLICE: Final = 16 * 1024
"""Bytes parsed at once while a head is awaited: how far a head that begins mid-way can exceed its bound unseen."""
_BLANK: Final = frozenset((b" ", b"\t"))


class ProtocolError(Exception):
    """The peer broke HTTP; the connection cannot go on. `too_large` asks for 431 instead of 400."""

    def __init__(self, text: str, too_large: bool = False) -> None:
        super().__init__(text)
        self.too_large = too_large


class _Reader:
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
        self._in_head = True
        self._fed = 0  # bytes fed since the head began: bounds a head that never ends

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

    def _check_size(self) -> None:
        """RFC 6585 §5: bound the header section by bytes and by fields."""
        headers = self._headers
        if len(headers) + len(self._special) > self._max_count:
            raise ProtocolError(f"more than {self._max_count} header fields", too_large=True)
        if self._fed > self._max_size - _SLICE and sum(len(n) + len(v) + 4 for n, v in headers) > self._max_size:
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
        named = tokens(connection)
        foreign = [token for token in named if token not in _OWN_TOKENS]
        if foreign:
            self._headers = [pair for pair in self._headers if pair[0] not in foreign]
        if b"close" in named:
            return False
        return b"keep-alive" in named if http10 else True

    def _reset(self) -> None:
        self._headers = []
        if self._special:
            self._special = []
        self._connection = self._content_length = self._transfer_encoding = None
        self._in_head = True
        self._fed = 0


class RequestReader(_Reader):
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
        if self._in_head and len(data) > _SLICE:
            for start in range(0, len(data), _SLICE):
                self._feed(data[start : start + _SLICE])
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            raise ProtocolError("data after the end of the connection")
        if self._in_head:
            self._fed += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            # llhttp stops at every Upgrade field. Without a route that asks for it the field is dropped and the
            # message is an ordinary request (RFC 9110 §7.8).
            rest = data[upgrade.args[0] :]
            if rest:
                self._feed(rest)
        except HttpParserInvalidMethodError as error:
            raise ProtocolError(f"unknown method: {error}") from None
        except HttpParserError as error:
            context = error.__context__
            if isinstance(context, ProtocolError):
                raise context from None
            raise ProtocolError(str(error)) from None
        if self._in_head and self._fed > self._max_size:
            raise ProtocolError(f"header section of more than {self._max_size} bytes", too_large=True)

    def close(self) -> None:
        """Break the cycle between reader and parser."""
        self._parser = None

    # ---- httptools callbacks

    def on_url(self, part: bytes) -> None:
        self._url = part if self._url is None else self._url + part

    def on_header(self, name: bytes, value: bytes) -> None:
        known = SPELLINGS.get(name) or classify(name)
        if value[-1:] in _BLANK:  # llhttp keeps the optional white space after a value (RFC 9112 §5)
            value = value.rstrip(b" \t")
        if self._message is not None:  # a trailer field
            if known[1] == names.PLAIN:  # framing and routing fields must not come late (RFC 9110 §6.5.1)
                self._message.trailers.append((known[0], value))
                if len(self._message.trailers) > self._max_count:
                    raise ProtocolError("too many trailer fields", too_large=True)
        elif known[1]:
            self._lift(known[1], value)
        else:
            self._headers.append((known[0], value))

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
        self._in_head = False
        self.messages.append(message)

    def on_body(self, chunk: bytes) -> None:
        message = self._message
        assert message is not None
        message.body.append(chunk)

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
        if b"@" in host:
            raise ProtocolError("userinfo in the authority (RFC 9110 §4.2.4)")
        if b"#" in head.target:
            raise ProtocolError("a fragment in the request target (RFC 9112 §3.2)")
        head.authority = host


class ResponseReader(_Reader):
    """The client side of one connection: one response at a time, in `message` from its head on.

    Call `expect` before each request. Informational responses (RFC 9110 §15.2) are read and dropped.
    """

    __slots__ = ("_complete", "_expecting", "_no_body", "_parser", "_reason", "_stale", "message")

    def __init__(self, max_size: int, max_count: int) -> None:
        super().__init__(max_size, max_count)
        self.message: ResponseMessage | None = None
        self._expecting = False
        self._no_body = False
        self._complete = True
        self._reason = b""
        self._stale = False
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def expect(self, method: bytes) -> None:
        """The next response answers a request with `method`: HEAD has no body whatever its fields say."""
        self.message = None
        self._expecting = True
        self._complete = False
        self._reason = b""
        self._no_body = method == b"HEAD"

    def feed(self, data: bytes) -> None:
        """Parse what arrived. Raises ProtocolError, also for bytes that answer no request."""
        parser = self._parser
        if parser is None or not self._expecting or self._complete:
            raise ProtocolError("data that answers no request")
        if self._in_head:
            self._fed += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            raise ProtocolError("an upgrade that was not asked for (RFC 9110 §7.8)") from None
        except HttpParserError as error:
            context = error.__context__
            if isinstance(context, ProtocolError):
                raise context from None
            raise ProtocolError(str(error)) from None
        if self._stale:  # llhttp waits for a body that a response to HEAD never has
            self._stale = False
            self._parser = HttpResponseParser(self)
            self._reset()
        if self._in_head and self._fed > self._max_size:
            raise ProtocolError(f"header section of more than {self._max_size} bytes", too_large=True)

    def end(self) -> bool:
        """The peer closed: True when that completes the message (RFC 9112 §6.3, no length), else it is cut off."""
        message = self.message
        if message is not None and not message.done and message.head.length == UNTIL_CLOSE:
            message.done = True
            self._complete = True
            return True
        return False

    def close(self) -> None:
        """Break the cycle between reader and parser."""
        self._parser = None

    # ---- httptools callbacks

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        known = SPELLINGS.get(name) or classify(name)
        if value[-1:] in _BLANK:  # llhttp keeps the optional white space after a value (RFC 9112 §5)
            value = value.rstrip(b" \t")
        if self.message is not None:
            if known[1] == names.PLAIN:
                self.message.trailers.append((known[0], value))
                if len(self.message.trailers) > self._max_count:
                    raise ProtocolError("too many trailer fields", too_large=True)
        elif known[1]:
            self._lift(known[1], value)
        else:
            self._headers.append((known[0], value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self._complete:
            raise ProtocolError("a second response to one request")
        self._check_size()
        version = parser.get_http_version()
        http10 = version == "1.0"
        if not http10 and version != "1.1":
            raise ProtocolError(f"HTTP version {version} (RFC 9112 §2.3)")
        status = parser.get_status_code()
        keep_alive = self._persistence(http10)
        if status < 200:
            if status < 100 or status == 101:
                raise ProtocolError(f"status {status} was not asked for")
            self._in_head = False
            return
        head = ResponseHead(status, self._reason, self._headers)
        head.keep_alive = keep_alive
        head.length = self._framing(http10, UNTIL_CLOSE)
        if status in _NO_CONTENT:  # RFC 9112 §6.3: no body; a 304's content-length describes the 200
            if head.length == CHUNKED:
                raise ProtocolError(f"transfer-encoding in a {status} response (RFC 9112 §6.1)")
        elif head.length == UNTIL_CLOSE and not self._no_body:
            head.keep_alive = False
        for kind, value in self._special:
            if kind == names.SERVER:
                head.server = value
            elif kind == names.UNSENT:
                head.unsent = value
            elif kind in _RESPONSE_FIELDS:
                head.dated = head.dated or kind == names.DATE
                head.headers.append((_RESPONSE_FIELDS[kind], value))
        self.message = message = ResponseMessage(head)
        self._in_head = False
        if self._no_body:
            message.done = self._complete = self._stale = True

    def on_body(self, chunk: bytes) -> None:
        if self._stale:
            raise ProtocolError("a body in the response to HEAD (RFC 9110 §9.3.2)")
        message = self.message
        assert message is not None
        message.body.append(chunk)

    def on_message_complete(self) -> None:
        if self._stale:
            return
        message = self.message
        if message is not None:
            message.done = self._complete = True
        self._reason = b""
        self._reset()


# Fields that are lifted out of requests but are ordinary in responses.
_RESPONSE_FIELDS: Final = {
    names.DATE: b"date",
    names.REQUEST_ID: b"x-request-id",
    names.TRACEPARENT: b"traceparent",
    names.FORWARDED_PROTO: b"x-forwarded-proto",
    names.CLIENT_CERT: b"x-forwarded-client-cert",
    names.UPGRADE: b"upgrade",
    names.HOST: b"host",
    names.EXPECT: b"expect",
    names.TE: b"te",
}


def no_message() -> RequestMessage:
    """Stands for a request that could not be read: what its error reply and its access-log record are made from."""
    head = RequestHead(b"", b"", b"", [])
    head.keep_alive = False
    message = RequestMessage(head)
    message.done = True
    return message
