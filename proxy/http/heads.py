"""The head of a request and of a response, and the message that grows behind it."""

from __future__ import annotations

from typing import Final

from proxy.http.headers import Headers, find

UNTIL_CLOSE: Final = -1
CHUNKED: Final = -2
"""Values of `length` beside a byte count: the body ends with the connection, or with the last chunk."""
NO_UPGRADE: Final = b""
CONNECT: Final = b"connect"
"""Values of `upgrade` beside a protocol's lower-case name: none is asked for, or what CONNECT asks for."""

NONE_SENSITIVE: Final[list[bytes]] = []


class RequestHead:
    """A request's method, target and headers, with what concerned only this hop taken out of `headers`.

    `length` is the body's: bytes, or CHUNKED. `upgrade` names the protocol that the client would rather speak.
    `authority` and `target` (path and query) are as received, but an absolute-form target has been split into the two
    (RFC 9112 §3.2.2). `sensitive`: names of fields that no hop may keep in a table (RFC 7541 §7.1.3).
    """

    __slots__ = (
        "authority",
        "client_cert",
        "expect_continue",
        "forwarded_proto",
        "grpc_timeout",
        "headers",
        "http10",
        "keep_alive",
        "length",
        "method",
        "request_id",
        "sensitive",
        "target",
        "te_trailers",
        "traceparent",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, authority: bytes, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.headers = headers
        self.length = 0
        self.http10 = False
        self.keep_alive = True
        self.expect_continue = False
        self.te_trailers = False
        self.traceparent: bytes | None = None
        self.request_id: bytes | None = None
        self.forwarded_proto: bytes | None = None
        self.client_cert: bytes | None = None
        self.grpc_timeout: bytes | None = None
        self.upgrade = NO_UPGRADE
        self.sensitive = NONE_SENSITIVE

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    def find(self, name: bytes) -> bytes | None:
        """A header's value by lower-case name, also of those that parsing lifted out, and of :method, :path and
        :authority; several fields of a name are joined with commas. None when absent."""
        lifted = _LIFTED.get(name)
        if lifted is not None:
            value: bytes | None = getattr(self, lifted)
            return value
        if name == b"upgrade":
            return self.upgrade or None
        if name == b"expect":
            return b"100-continue" if self.expect_continue else None
        if name == b"te":
            return b"trailers" if self.te_trailers else None
        if name == b"transfer-encoding":
            return b"chunked" if self.length == CHUNKED else None
        if name == b"content-length":
            return b"%d" % self.length if self.length > 0 else None
        return find(self.headers, name)


_LIFTED: Final = {
    b":method": "method",
    b":path": "target",
    b":authority": "authority",
    b"host": "authority",
    b"traceparent": "traceparent",
    b"x-request-id": "request_id",
    b"x-forwarded-proto": "forwarded_proto",
    b"x-forwarded-client-cert": "client_cert",
    b"grpc-timeout": "grpc_timeout",
}


class ResponseHead:
    """A response's status and headers. `length` is the body's: bytes, CHUNKED or UNTIL_CLOSE."""

    __slots__ = (
        "dated",
        "headers",
        "keep_alive",
        "length",
        "reason",
        "sensitive",
        "server",
        "status",
        "unsent",
        "upgrade",
    )

    def __init__(self, status: int, reason: bytes, headers: Headers) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.length = 0
        self.keep_alive = True
        self.dated = False
        self.server: bytes | None = None
        self.unsent: bytes | None = None
        self.upgrade = NO_UPGRADE
        self.sensitive = NONE_SENSITIVE


class Message:
    """A request or response as far as it has arrived. The reader appends to `body`; its owner takes the chunks out.
    `sensitive`: as that of heads, for the trailers."""

    __slots__ = ("body", "done", "sensitive", "trailers")

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.trailers: Headers = []
        self.sensitive = NONE_SENSITIVE
        self.done = False


class RequestMessage(Message):
    """A request."""

    __slots__ = ("head",)

    def __init__(self, head: RequestHead) -> None:
        super().__init__()
        self.head = head


class ResponseMessage(Message):
    """A response."""

    __slots__ = ("head",)

    def __init__(self, head: ResponseHead) -> None:
        super().__init__()
        self.head = head
