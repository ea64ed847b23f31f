"""Fields become heads and trailers, and heads become fields again (RFC 9113 §8).

What is read is in the terms that HTTP/1.1 has, too: an extended CONNECT is a GET that asks for an upgrade (RFC 8441),
several Cookie fields are one. A message that breaks a rule is malformed and costs its stream (§8.1.1).
"""

from __future__ import annotations

import re
from typing import Any, Final

from proxy.http import headers as names
from proxy.http.headers import Field, Headers
from proxy.http.heads import CHUNKED, CONNECT, NO_UPGRADE, RequestHead, ResponseHead
from proxy.http.target import is_connect_target, is_host, is_path

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_STATUS: Final = re.compile(rb"[1-5][0-9]{2}")
_SCHEMES: Final = (b"http", b"https")
_METHODS: Final = (b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH")


class Malformed(Exception):
    """A message that is none: a stream error PROTOCOL_ERROR (RFC 9113 §8.1.1)."""


def read_request(fields: list[Field], extended_connect: bool) -> RequestHead:
    """A request's head. `length` is CHUNKED when no content-length says it. Raises Malformed."""
    headers: list[Any] = []
    head = RequestHead(b"", b"", b"", headers)
    head.length = CHUNKED
    method = scheme = path = protocol = authority = host = None
    regular = False
    cookies: list[bytes] | None = None
    for field in fields:
        kind = field.kind
        if kind == names.PLAIN:
            headers.append(field.pair)
            regular = True
            continue
        pair = field.pair
        value: bytes = pair[1]
        if kind < names.METHOD or kind == names.COOKIE:
            regular = True
            if kind == names.COOKIE:
                if cookies is None:
                    cookies = []
                cookies.append(value)
            elif kind == names.CONTENT_LENGTH:
                head.length = _content_length(value, head.length)
            elif kind == names.HOST:
                if host is not None:
                    raise Malformed("more than one host (RFC 9110 §7.2)")
                host = value
            else:
                _place(head, kind, value, headers)
        elif kind == names.MALFORMED:
            raise Malformed(_what_is_wrong(field))
        elif regular:
            raise Malformed("a pseudo-header field behind a regular one (RFC 9113 §8.3)")
        elif kind == names.METHOD and method is None:
            head.method = method = value
        elif kind == names.PATH and path is None:
            path = value
        elif kind == names.SCHEME and scheme is None:
            scheme = value
        elif kind == names.AUTHORITY and authority is None:
            authority = value
        elif kind == names.PROTOCOL and protocol is None:
            protocol = value
        else:
            raise Malformed("a pseudo-header field twice, or one of responses (RFC 9113 §8.3)")
    if cookies is not None:  # RFC 9113 §8.2.3
        headers.append((b"cookie", b"; ".join([crumb for crumb in cookies if crumb])))
    if head.method not in _METHODS and _TOKEN.fullmatch(head.method) is None:
        raise Malformed("no method (RFC 9113 §8.3.1)")
    if authority is None:
        authority = host if host is not None else b""
    elif host is not None and host != authority and host.lower() != authority.lower():
        raise Malformed("host and :authority differ (RFC 9113 §8.3.1)")
    if head.method == b"CONNECT" or protocol is not None:
        _connect(head, scheme, path, authority, protocol, extended_connect)
    elif scheme is None or path is None:
        raise Malformed("no :scheme or no :path (RFC 9113 §8.3.1)")
    else:
        _address(head, scheme, path, authority)
    return head


def _address(head: RequestHead, scheme: bytes, path: bytes, authority: bytes) -> None:
    if scheme not in _SCHEMES:
        raise Malformed("a :scheme other than http and https")
    if not is_path(path) and (path != b"*" or head.method != b"OPTIONS"):
        raise Malformed("a :path that is none (RFC 9113 §8.3.1)")
    if not authority or not is_host(authority):
        raise Malformed("no valid :authority (RFC 9113 §8.3.1)")
    head.target = path
    head.authority = authority


def _connect(
    head: RequestHead,
    scheme: bytes | None,
    path: bytes | None,
    authority: bytes,
    protocol: bytes | None,
    extended: bool,
) -> None:
    """CONNECT (RFC 9113 §8.5), or the extended one (RFC 8441 §4)."""
    head.length = 0
    if protocol is None:
        if scheme is not None or path is not None:
            raise Malformed("CONNECT with :scheme or :path (RFC 9113 §8.5)")
        if not is_connect_target(authority) or not is_host(authority):
            raise Malformed("a CONNECT :authority that is not host:port (RFC 9110 §9.3.6)")
        head.target = head.authority = authority
        head.upgrade = CONNECT
        return
    if head.method != b"CONNECT" or not extended:
        raise Malformed("a :protocol where extended CONNECT is off, or another method has it (RFC 8441 §4)")
    if scheme is None or path is None or _TOKEN.fullmatch(protocol) is None:
        raise Malformed("an extended CONNECT without :scheme, :path or a valid :protocol (RFC 8441 §4)")
    _address(head, scheme, path, authority)
    head.method = b"GET"
    head.upgrade = protocol.lower()


def _place(head: RequestHead, kind: int, value: bytes, headers: list[Any]) -> None:
    if kind == names.TRACEPARENT:
        # Two of them: the trace is broken, restart it (W3C Trace Context §3.2).
        head.traceparent = value if head.traceparent is None else b""
    elif kind == names.REQUEST_ID:
        head.request_id = value or None
    elif kind == names.TE:
        if value != b"trailers" and value.lower() != b"trailers":
            raise Malformed("te other than trailers (RFC 9113 §8.2.2)")
        head.te_trailers = True
    elif kind == names.GRPC_TIMEOUT:
        head.grpc_timeout = value
    elif kind == names.FORWARDED_PROTO:
        head.forwarded_proto = value
    elif kind == names.CLIENT_CERT:
        head.client_cert = value if head.client_cert is None else head.client_cert + b"," + value
    elif kind == names.EXPECT:
        head.expect_continue = value.lower() == b"100-continue"
    elif kind == names.SERVER:
        headers.append((b"server", value))
    elif kind == names.DATE:
        headers.append((b"date", value))


def _content_length(value: bytes, known: int) -> int:
    if _LENGTH.fullmatch(value) is None:
        raise Malformed("a content-length that is no number (RFC 9110 §8.6)")
    length = int(value)
    if known not in (CHUNKED, length):
        raise Malformed("two different content-lengths (RFC 9110 §8.6)")
    return length


def _what_is_wrong(field: Field) -> str:
    name: bytes = field.pair[0]
    if name[:1] == b":":
        return "a pseudo-header field that is not defined (RFC 9113 §8.3)"
    if name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
        return "a field that speaks of a connection (RFC 9113 §8.2.2)"
    if _TOKEN.fullmatch(name) is None or name.lower() != name:
        return "a field name that is no lower-case token (RFC 9113 §8.2.1)"
    return "a field value with characters that none may have (RFC 9113 §8.2.1)"


def read_response(fields: list[Field]) -> ResponseHead:
    """A response's head. `length` is CHUNKED when no content-length says it. Raises Malformed."""
    headers: list[Any] = []
    head = ResponseHead(0, b"", headers)
    head.length = CHUNKED
    if not fields or fields[0].kind != names.STATUS:
        raise Malformed("no :status, or behind other fields (RFC 9113 §8.3.2)")
    for field in fields:
        kind = field.kind
        if kind == names.PLAIN:
            headers.append(field.pair)
            continue
        pair = field.pair
        value: bytes = pair[1]
        if kind == names.STATUS:
            if head.status or _STATUS.fullmatch(value) is None:
                raise Malformed("a :status that is none or double (RFC 9113 §8.3.2)")
            head.status = int(value)
        elif kind == names.DATE:
            head.dated = True
            headers.append(pair)
        elif kind == names.SERVER:
            head.server = value
        elif kind == names.CONTENT_LENGTH:
            head.length = _content_length(value, head.length)
        elif kind == names.MALFORMED:
            raise Malformed(_what_is_wrong(field))
        elif kind == names.UNSENT:
            head.unsent = value
        elif kind >= names.METHOD and kind != names.COOKIE:
            raise Malformed("a pseudo-header field of requests (RFC 9113 §8.3)")
        elif kind != names.HOP:
            headers.append(pair)  # of requests; ordinary here
    return head


def read_trailers(fields: list[Field], underscores: bool) -> Headers:
    """A trailer section, without what is not to be believed that late. Raises Malformed."""
    trailers: list[Any] = []
    for field in fields:
        kind = field.kind
        if kind in (names.MALFORMED, names.CONTENT_LENGTH) or names.METHOD <= kind < names.MALFORMED:
            raise Malformed("a trailer section with a field that it must not have (RFC 9113 §8.1)")
        name: bytes = field.pair[0]
        if kind == names.PLAIN and name not in names.NO_TRAILERS and (underscores or b"_" not in name):
            trailers.append(field.pair)
    return trailers


_GET: Final = (b":method", b"GET")
_POST: Final = (b":method", b"POST")
_HTTP: Final = (b":scheme", b"http")
_HTTPS: Final = (b":scheme", b"https")
_TE_TRAILERS: Final = (b"te", b"trailers")
_OK: Final = (b":status", b"200")


def request_fields(
    head: RequestHead, scheme: bytes, target: bytes, authority: bytes, extra: Headers, length: int
) -> list[Any]:
    """The fields of a request; `extra` come last. `length`: CHUNKED or 0 say nothing of it."""
    method = head.method
    fields: list[Any]
    schemed: Any = _HTTPS if scheme == b"https" else _HTTP
    if head.upgrade == CONNECT:
        fields = [(b":method", b"CONNECT"), (b":authority", authority)]
    elif head.upgrade != NO_UPGRADE:
        fields = [
            (b":method", b"CONNECT"),
            schemed,
            (b":path", target),
            (b":authority", authority),
            (b":protocol", head.upgrade),
        ]
    else:
        verb: Any = _POST if method == b"POST" else _GET if method == b"GET" else (b":method", method)
        fields = [verb, schemed, (b":path", target), (b":authority", authority)]
    fields += head.headers
    if length > 0:
        fields.append((b"content-length", b"%d" % length))
    if head.te_trailers:
        fields.append(_TE_TRAILERS)
    fields += extra
    return fields


def response_fields(head: ResponseHead, extra: Headers) -> list[Any]:
    """The fields of a response or of an informational one; `extra` come last."""
    status = head.status
    if head.upgrade != NO_UPGRADE and head.upgrade != CONNECT:
        status = 200  # RFC 8441 §5
    first: Any = _OK if status == 200 else (b":status", b"%d" % status)
    fields: list[Any] = [first]
    fields += head.headers
    if head.length > 0 and head.upgrade == NO_UPGRADE:
        fields.append((b"content-length", b"%d" % head.length))
    fields += extra
    return fields
