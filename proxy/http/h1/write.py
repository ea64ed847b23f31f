"""HTTP/1.1 out: heads and chunks as bytes. What is forwarded is written anew from the parsed form, never copied."""

from __future__ import annotations

from typing import Final

from proxy.http.headers import Headers
from proxy.http.heads import CHUNKED, CONNECT, NO_UPGRADE, RequestHead, ResponseHead

REASONS: Final[dict[int, bytes]] = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 204: b"No Content", 206: b"Partial Content",
    301: b"Moved Permanently", 302: b"Found", 303: b"See Other", 304: b"Not Modified", 307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large", 429: b"Too Many Requests",
    426: b"Upgrade Required", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip
LAST_CHUNK: Final = b"0\r\n\r\n"


def request_bytes(head: RequestHead, target: bytes, authority: bytes, extra: Headers) -> bytes:
    """A request head for the wire; the `extra` fields come last."""
    length = head.length
    if length == CHUNKED:
        framing = b"transfer-encoding: chunked\r\n"
    elif length or head.method in _BODY_METHODS:
        framing = b"content-length: %d\r\n" % length
    else:
        framing = b""
    if head.upgrade != NO_UPGRADE:
        framing += upgrade_lines(head.upgrade)
        if head.upgrade == CONNECT:
            target = authority  # RFC 9112 §3.2.3
    elif head.te_trailers:
        framing += b"te: trailers\r\nconnection: te\r\n"
    parts = [head.method, b" ", target, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]
    _add_lines(parts, head.headers)
    if framing:
        parts.append(framing)
    _add_lines(parts, extra)
    parts.append(b"\r\n")
    return b"".join(parts)


def _add_lines(parts: list[bytes], headers: Headers) -> None:
    for name, value in headers:
        parts.append(name)
        parts.append(b": ")
        parts.append(value)
        parts.append(b"\r\n")


_BODY_METHODS: Final = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods whose empty body is announced (RFC 9110 §8.6)."""


def upgrade_lines(upgrade: bytes) -> bytes:
    """The fields that ask for another protocol or agree to it (RFC 9110 §7.8); CONNECT says it without any."""
    return b"" if upgrade == CONNECT else b"connection: upgrade\r\nupgrade: %b\r\n" % upgrade


def response_bytes(head: ResponseHead, framing: bytes, extra: bytes) -> bytes:
    """A response head for the wire; `framing` and `extra` hold complete header lines."""
    status = head.status
    reason = head.reason or REASONS.get(status, b"")
    parts = [b"HTTP/1.1 %d " % status, reason, b"\r\n"]
    _add_lines(parts, head.headers)
    parts.append(framing)
    parts.append(extra)
    parts.append(b"\r\n")
    return b"".join(parts)


def chunk_bytes(chunks: list[bytes]) -> bytes:
    """The chunks as one chunk of the chunked coding (RFC 9112 §7.1); nothing for an empty list."""
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Headers) -> bytes:
    """The end of a chunked body, with its trailer section."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % pair for pair in trailers])
