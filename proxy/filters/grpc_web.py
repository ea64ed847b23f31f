"""gRPC-Web: gRPC for browsers, which can neither read trailers nor, in some cases, send or receive binary bodies
(envoy.extensions.filters.http.grpc_web.v3.GrpcWeb; the protocol is gRPC's PROTOCOL-WEB.md).

A request of a gRPC-Web content type goes on as gRPC. Its response comes back with the trailers as a last frame of the
body. A body of the -text types is base64, both ways. A response that is not gRPC (an error page) becomes a gRPC status
in the head, with the body's text as its message.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from typing import Any, Final

from proxy import errors
from proxy.filters.interface import Filter, FilterError, Reply, Transform, put
from proxy.http import grpc
from proxy.http.headers import Headers, find, tokens
from proxy.http.heads import CHUNKED, RequestHead, ResponseHead
from proxy.routing.table import CompiledRoute
from proxy.telemetry.record import Record

TRAILERS: Final = b"\x80"
"""The flag of the frame that holds the trailers, where a message's frame has 0 or 1."""
MAX_MESSAGE: Final = 16 * 1024
"""Bytes of an error page that become the grpc-message, as in Envoy."""

_GRPC: Final = b"application/grpc"
_WEB: Final = b"application/grpc-web"
_TEXT: Final = b"application/grpc-web-text"
_PROTO: Final = b"+proto"


class GrpcWebFilter(Filter):
    """Translates requests of gRPC-Web content types, of any message format (+proto and others). The rest pass."""

    __slots__ = ()

    def __init__(self, config: object) -> None:
        pass

    def on_request(
        self, head: RequestHead, record: Record, route: CompiledRoute[Any] | None
    ) -> Reply | Transform | None:
        content_type = find(head.headers, b"content-type")
        if content_type is None or head.upgrade or (route is not None and route.grpc_web_disabled):
            return None
        kind, form = _split(content_type)
        if kind not in (_WEB, _TEXT):
            return None
        # As Envoy: gRPC without a format is +proto.
        head.headers = put(head.headers, b"content-type", _GRPC if form == _PROTO else _GRPC + form)
        if find(head.headers, b"grpc-accept-encoding") is None:
            head.headers.append((b"grpc-accept-encoding", b"identity"))  # a client that says nothing cannot inflate
        head.te_trailers = True
        if head.length > 0:
            head.length = CHUNKED  # text becomes shorter; as in Envoy no content-length goes on for binary, either
        # Accept alone says what the response is to be (PROTOCOL-WEB, "Text-encoded (response) streams").
        accept = find(head.headers, b"accept")
        text = accept is not None and any(_split(member)[0] == _TEXT for member in tokens(accept))
        return GrpcWebCall(form or _PROTO, kind == _TEXT, text)


class GrpcWebCall(Transform):
    """One call. `form`: the message format that the client asked with, "+proto" or another. `text_request` and
    `text_response`: that body is base64."""

    __slots__ = ("_form", "_held", "_page", "_page_size", "_rest", "_text_request", "_text_response")

    def __init__(self, form: bytes, text_request: bool, text_response: bool) -> None:
        self._form: Final = form
        self._text_request: Final = text_request
        self._text_response: Final = text_response
        self._rest = b""  # what of the request is less than four characters of base64
        self._held: ResponseHead | None = None  # that of a response which is not gRPC, while its body comes
        self._page: list[bytes] = []
        self._page_size = 0

    def request(self, chunks: list[bytes], done: bool) -> list[bytes]:
        if not self._text_request:
            return chunks
        data = b"".join([self._rest, *chunks])
        whole = len(data) & ~3
        self._rest = data[whole:]
        if done and self._rest:
            raise FilterError(errors.GRPC_WEB_NOT_BASE64, "it ends within four characters")
        decoded = _decoded(data[:whole])
        return [decoded] if decoded else []

    def response_head(self, head: ResponseHead, alone: bool) -> None:
        self._held, self._page, self._page_size = None, [], 0
        headers = head.headers
        kind, form = _split(find(headers, b"content-type") or b"")
        known = kind in (_GRPC, _WEB)
        answer = _TEXT if self._text_response else _WEB
        head.headers = put(headers, b"content-type", answer + (form if known and form else self._form))
        if alone:
            if find(headers, b"grpc-status") is None:
                _become_status(head, b"")
        elif known and head.status == 200:
            head.length = CHUNKED
        else:
            self._held = head

    def response(self, chunks: list[bytes], done: bool, trailers: Headers) -> list[bytes] | None:
        held = self._held
        if held is not None:
            for chunk in chunks:
                if self._page_size < MAX_MESSAGE:
                    self._page.append(chunk)
                    self._page_size += len(chunk)
            if not done:
                return None
            self._held = None
            _become_status(held, b"".join(self._page)[:MAX_MESSAGE])
            trailers.clear()
            return []
        if trailers:
            lines = b"".join([b"%b:%b\r\n" % pair for pair in trailers])
            trailers.clear()
            chunks = [*chunks, TRAILERS + len(lines).to_bytes(4, "big") + lines]
        if self._text_response and chunks:
            # Padded by itself, so that the client can read what has come.
            return [b2a_base64(b"".join(chunks), newline=False)]
        return chunks


def _split(media_type: bytes) -> tuple[bytes, bytes]:
    """A media type without its parameters, in lower case: what stands before the plus sign, and that with what
    follows."""
    essence = media_type.partition(b";")[0].strip().lower()
    kind, plus, form = essence.partition(b"+")
    return kind, plus + form


def _decoded(data: bytes) -> bytes:
    """Base64 in whole groups of four characters, any of which may be padded: the sender may end its encoding wherever
    it flushes. Raises FilterError."""
    try:
        padding = data.find(b"=")
        if padding < 0:
            return a2b_base64(data, strict_mode=True)
        parts: list[bytes] = []
        start = 0
        while padding >= 0:
            end = (padding | 3) + 1
            part = a2b_base64(data[start:end], strict_mode=True)
            if b2a_base64(part[-(len(part) % 3) :], newline=False) != data[end - 4 : end]:
                raise FilterError(errors.GRPC_WEB_NOT_BASE64, "padded bits are not zero")  # RFC 4648 §3.5
            parts.append(part)
            start = end
            padding = data.find(b"=", end)
        parts.append(a2b_base64(data[start:], strict_mode=True))
        return b"".join(parts)
    except Error as error:
        raise FilterError(errors.GRPC_WEB_NOT_BASE64, str(error)) from None


def _become_status(head: ResponseHead, page: bytes) -> None:
    """Make a response without a body that says in gRPC's terms what an HTTP status and the text of its body said."""
    headers = put(head.headers, b"grpc-status", grpc.code_of(head.status))
    message = grpc.percent_encoded(page.rstrip())
    head.headers = put(headers, b"grpc-message", message) if message else headers
    head.length = 0
