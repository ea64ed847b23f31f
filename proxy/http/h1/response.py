"""The client side of a connection: bytes become the response to the request that is under way."""

from __future__ import annotations

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy.http import headers as names
from proxy.http.h1.reader import ProtocolError, Reader
from proxy.http.heads import CHUNKED, UNTIL_CLOSE, ResponseHead, ResponseMessage

_MAX_INTERIM: Final = 100
_NO_CONTENT: Final = frozenset((204, 304))
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


class ResponseReader(Reader):
    """The client side of one connection: one response at a time, in `message` from its head on.

    Call `expect` before each request. Informational responses (RFC 9110 §15.2) are read and dropped.
    """

    __slots__ = ("_complete", "_expecting", "_interim", "_no_body", "_parser", "_reason", "_stale", "message")

    def __init__(self, max_size: int, max_count: int) -> None:
        super().__init__(max_size, max_count)
        self.message: ResponseMessage | None = None
        self._expecting = False
        self._no_body = False
        self._complete = True
        self._interim = 0
        self._reason = b""
        self._stale = False
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def expect(self, method: bytes) -> None:
        """The next response answers a request with `method`: HEAD has no body whatever its fields say."""
        self.message = None
        self._expecting = True
        self._complete = False
        self._interim = 0
        self._reason = b""
        self._no_body = method == b"HEAD"

    def feed(self, data: bytes) -> None:
        """Parse what arrived. Raises ProtocolError, also for bytes that answer no request."""
        parser = self._parser
        if parser is None or not self._expecting or self._complete:
            raise ProtocolError("data that answers no request")
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
        if self._fed > self._max_size:
            self._check_fed()

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
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise ProtocolError(f"more than {_MAX_INTERIM} interim responses")
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
            if kind == names.UNSENT:
                head.unsent = value
            elif kind in _RESPONSE_FIELDS:
                head.dated = head.dated or kind == names.DATE
                head.headers.append((_RESPONSE_FIELDS[kind], value))
        self.message = message = ResponseMessage(head)
        self._trailers = message.trailers
        self._in_head = False
        self._fed = 0
        if self._no_body:
            message.done = self._complete = self._stale = True

    def on_body(self, chunk: bytes) -> None:
        if self._stale:
            raise ProtocolError("a body in the response to HEAD (RFC 9110 §9.3.2)")
        message = self.message
        assert message is not None
        message.body.append(chunk)
        self._fed = 0

    def on_message_complete(self) -> None:
        if self._stale:
            return
        message = self.message
        if message is not None:
            message.done = self._complete = True
        self._reason = b""
        self._reset()
