"""What a proxy knows of gRPC (gRPC over HTTP/2): which requests are calls, their status, and an error of our own."""

from __future__ import annotations

from typing import Final

from proxy.http.headers import Headers
from proxy.http.heads import RequestHead, ResponseMessage

_CONTENT_TYPE: Final = b"application/grpc"
_PERCENT: Final = [
    b"%c" % octet if 0x20 <= octet <= 0x7E and octet != 0x25 else b"%%%02X" % octet for octet in range(256)
]
_CODES: Final[dict[int, bytes]] = {
    400: b"13",
    401: b"16",
    403: b"7",
    404: b"12",
    429: b"14",
    502: b"14",
    503: b"14",
    504: b"14",
}

_HTTP_STATUSES: Final[dict[bytes, int]] = {
    b"0": 200,
    b"1": 499,
    b"3": 400,
    b"4": 504,
    b"5": 404,
    b"6": 409,
    b"7": 403,
    b"8": 429,
    b"9": 400,
    b"10": 409,
    b"11": 400,
    b"12": 501,
    b"14": 503,
    b"16": 401,
}


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


def error_headers(code: bytes, text: bytes) -> Headers:
    """The headers of a response that is nothing but an error ("Trailers-Only")."""
    return [
        (b"content-type", _CONTENT_TYPE),
        (b"grpc-status", code),
        (b"grpc-message", percent_encoded(text)),
    ]


def percent_encoded(text: bytes) -> bytes:
    """Status-Message: what is no printable ASCII, and "%", as %XX."""
    return b"".join([_PERCENT[octet] for octet in text])


def code_of(http_status: int) -> bytes:
    """The grpc-status of a response that has none (gRPC's http-grpc-status-mapping.md); UNKNOWN unless it is named."""
    return _CODES.get(http_status, b"2")


def http_status(code: bytes) -> int:
    """The status of HTTP that a grpc-status is as good as (google.rpc.Code, as Envoy's outlier detection maps it); 500
    for UNKNOWN, INTERNAL, DATA_LOSS and what is no code."""
    return _HTTP_STATUSES.get(code, 500)
