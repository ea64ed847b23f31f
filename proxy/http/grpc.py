"""What a proxy knows of gRPC (gRPC over HTTP/2): which requests are calls, their status, and an error of our own."""

from __future__ import annotations

from typing import Final

from proxy.http.headers import Headers
from proxy.http.heads import RequestHead, ResponseMessage

_CONTENT_TYPE: Final = b"application/grpc"
_UNESCAPED: Final = frozenset(range(0x20, 0x7F)) - {0x25}


def is_request(head: RequestHead) -> bool:
    """Whether a request is a gRPC call: its content-type is application/grpc, alone or with a message format."""
    for name, value in head.headers:
        if name == b"content-type":
            return value.startswith(_CONTENT_TYPE) and value[16:17] in (b"", b"+", b";")
    return False


def status(message: ResponseMessage) -> bytes:
    """The grpc-status of a whole response: in its trailers, or in its head when there is nothing else. Empty without
    one."""
    for name, value in message.trailers or message.head.headers:
        if name == b"grpc-status":
            return value
    return b""


def error_headers(code: int, text: str) -> Headers:
    """The headers of a response that is nothing but an error ("Trailers-Only")."""
    return [
        (b"content-type", _CONTENT_TYPE),
        (b"grpc-status", b"%d" % code),
        (b"grpc-message", _percent_encoded(text.encode())),
    ]


def _percent_encoded(text: bytes) -> bytes:
    """Status-Message: what is no printable ASCII, and "%", as %XX."""
    return b"".join([bytes((octet,)) if octet in _UNESCAPED else b"%%%02X" % octet for octet in text])
