"""The gRPC-Web filter: the same bytes mean the same however they are split; what it makes of any response."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.route import ForwardAction, Route, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster
from proxy.filters.grpc_web import MAX_MESSAGE, GrpcWebFilter
from proxy.filters.interface import Chain, FilterError, Transform
from proxy.http.headers import Headers
from proxy.http.heads import CHUNKED, UNTIL_CLOSE, RequestHead, ResponseHead
from proxy.routing.table import CompiledRoute, RouteTable
from proxy.telemetry.record import Record

GRPC, WEB, TEXT = b"application/grpc", b"application/grpc-web", b"application/grpc-web-text"
OK: Headers = [(b"grpc-status", b"0"), (b"grpc-message", b""), (b"x-bin", b"AAE=")]
FRAME = b"\x80\0\0\0*grpc-status:0\r\ngrpc-message:\r\nx-bin:AAE=\r\n"


def request(content_type: bytes | None, *more: tuple[bytes, bytes], length: int = 9) -> RequestHead:
    headers = [(b"content-type", content_type), *more] if content_type is not None else list(more)
    head = RequestHead(b"POST", b"/p.S/M", b"a", headers)
    head.length = length
    return head


def passed(head: RequestHead, route: CompiledRoute[Any] | None = None) -> Transform | None:
    found = GrpcWebFilter(None).on_request(head, Record(0.0), route)
    assert found is None or isinstance(found, Transform)
    return found


def call(content_type: bytes = WEB, *more: tuple[bytes, bytes]) -> Chain:
    found = passed(request(content_type, *more))
    assert found is not None
    return Chain([found])


def text_call() -> Chain:
    return call(TEXT, (b"accept", TEXT))


def response(status: int = 200, content_type: bytes | None = GRPC, *more: tuple[bytes, bytes]) -> ResponseHead:
    headers = [(b"content-type", content_type), *more] if content_type is not None else list(more)
    head = ResponseHead(status, b"", headers)
    head.length = UNTIL_CLOSE
    return head


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def sent(chain: Chain, chunks: list[bytes]) -> bytes:
    """What of a request's body passes, when its chunks come one by one and its end apart."""
    return b"".join([*(b"".join(chain.request([chunk], False)) for chunk in chunks), *chain.request([], True)])


def received(chain: Chain, head: ResponseHead, chunks: list[bytes], trailers: Headers) -> list[bytes]:
    """The same of a response."""
    trailers = list(trailers)
    result = []
    for chunk in chunks:
        result += chain.response(head, [chunk], False, []) or []
    last = chain.response(head, [], True, trailers)
    assert last is not None
    assert trailers == []
    return result + last


def unpadded(chunks: list[bytes]) -> bytes:
    return b"".join([base64.b64decode(chunk, validate=True) for chunk in chunks])


# ---- the request


@pytest.mark.parametrize(
    ("content_type", "upstream"),
    [
        (WEB, GRPC),
        (WEB + b"+proto", GRPC),
        (TEXT, GRPC),
        (TEXT + b"+proto", GRPC),
        (WEB + b"+json", GRPC + b"+json"),
        (TEXT + b"+thrift", GRPC + b"+thrift"),
        (b"Application/gRPC-Web+Proto; charset=utf-8", GRPC),
    ],
)
def test_the_request_becomes_grpc(content_type: bytes, upstream: bytes) -> None:
    head = request(content_type, (b"x-grpc-web", b"1"))
    assert passed(head) is not None
    assert head.headers == [
        (b"content-type", upstream),
        (b"x-grpc-web", b"1"),
        (b"grpc-accept-encoding", b"identity"),
    ]
    assert head.te_trailers
    assert head.length == CHUNKED


def test_what_the_client_says_of_compression_stays() -> None:
    head = request(WEB, (b"grpc-accept-encoding", b"gzip"), length=0)
    assert passed(head) is not None
    assert head.find(b"grpc-accept-encoding") == b"gzip"
    assert head.length == 0  # still no body


@pytest.mark.parametrize("content_type", [None, b"", GRPC, GRPC + b"+proto", b"application/grpc-webx", b"text/plain"])
def test_other_requests_pass_untouched(content_type: bytes | None) -> None:
    head = request(content_type)
    before = list(head.headers)
    assert passed(head) is None
    assert (head.headers, head.length, head.te_trailers) == (before, 9, False)


def test_neither_an_upgrade_nor_a_route_where_it_is_off_is_translated() -> None:
    head = request(WEB)
    head.upgrade = b"websocket"
    assert passed(head) is None
    config = Route(RouteMatch("prefix", "/"), ForwardAction((WeightedCluster("c"),)), grpc_web_disabled=True)
    table = RouteTable(RouteConfiguration("r", (VirtualHost("v", ("*",), (config,)),)), str)
    assert passed(request(WEB), table.match(request(WEB))) is None


@given(st.lists(st.binary()), st.lists(st.integers(0)))
def test_a_binary_body_passes_as_it_is(parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(parts)
    assert sent(call(), pieces(body, cuts)) == body


@given(st.lists(st.binary()), st.lists(st.integers(0)))
def test_text_is_decoded_wherever_it_was_padded_and_wherever_it_is_split(parts: list[bytes], cuts: list[int]) -> None:
    text = b"".join([base64.b64encode(part) for part in parts])
    assert sent(text_call(), pieces(text, cuts)) == b"".join(parts)


def verdict(chunks: list[bytes]) -> bytes | None:
    try:
        return sent(text_call(), chunks)
    except FilterError:
        return None


@given(st.text("Aa/=+-_\n").map(str.encode) | st.binary(), st.lists(st.integers(0)))
def test_invalid_text_is_refused_wherever_it_is_split(text: bytes, cuts: list[int]) -> None:
    whole = verdict([text])
    assert verdict(pieces(text, cuts)) == whole
    if whole is not None:
        # Each group means what an encoder would have written.
        groups = [text[at : at + 4] for at in range(0, len(text), 4)]
        assert [base64.b64encode(base64.b64decode(group, validate=True)) for group in groups] == groups


@pytest.mark.parametrize(
    "text", [b"A", b"AAAAA", b"AA*A", b"AA=A", b"A===", b"====", b"AA\r\n", b"A-_A", b"AAB=", b"AAA"]
)
def test_no_base64_is_refused(text: bytes) -> None:
    with pytest.raises(FilterError) as caught:
        sent(text_call(), [text])
    assert caught.value.kind.status == 400


# ---- the response


@pytest.mark.parametrize(
    ("asked", "answered", "expected"),
    [
        (call(WEB), GRPC, WEB + b"+proto"),
        (call(WEB), GRPC + b"+proto", WEB + b"+proto"),
        (call(WEB + b"+json"), GRPC, WEB + b"+json"),
        (call(WEB), GRPC + b"+json", WEB + b"+json"),
        (call(TEXT), GRPC, WEB + b"+proto"),  # Accept alone decides, as in Envoy
        (call(WEB, (b"accept", TEXT)), GRPC, TEXT + b"+proto"),
        (call(WEB, (b"accept", b"*/*, application/grpc-web-text+proto")), GRPC, TEXT + b"+proto"),
        (call(WEB, (b"accept", WEB)), GRPC, WEB + b"+proto"),
        (call(WEB), WEB + b"+proto", WEB + b"+proto"),  # translated already, further up
        (call(WEB), b"text/plain", WEB + b"+proto"),
        (call(WEB), None, WEB + b"+proto"),
    ],
)
def test_the_response_is_of_the_type_that_was_asked_for(asked: Chain, answered: bytes | None, expected: bytes) -> None:
    head = response(200, answered)
    asked.response(head, [], True, [(b"grpc-status", b"0")])
    assert head.headers[0] == (b"content-type", expected)


@given(st.lists(st.binary()), st.lists(st.integers(0)))
def test_trailers_are_the_last_frame_of_the_body(parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(parts)
    head, text_head = response(), response()
    assert b"".join(received(call(), head, pieces(body, cuts), OK)) == body + FRAME
    assert unpadded(received(text_call(), text_head, pieces(body, cuts), OK)) == body + FRAME
    assert head.length == text_head.length == CHUNKED


def test_what_has_come_goes_on_at_once() -> None:
    for chain, expected in ((call(), b"\0\0\0\0\1a"), (text_call(), b"AAAAAAFh")):
        head = response()
        assert chain.response(head, [], False, []) == []
        assert chain.response(head, [b"\0\0\0\0\1a"], False, []) == [expected]
        assert head.length == CHUNKED


def test_a_whole_response_in_one_call() -> None:
    trailers = list(OK)
    head = response()
    assert call().response(head, [b"a"], True, trailers) == [b"a", FRAME]
    assert trailers == []


def test_a_trailers_only_response_keeps_its_status_in_the_head() -> None:
    for chain in (call(), text_call()):
        head = response(200, GRPC, (b"grpc-status", b"5"), (b"grpc-message", b"no"))
        head.length = 0
        assert chain.response(head, [], True, []) == []
        assert head.headers[1:] == [(b"grpc-status", b"5"), (b"grpc-message", b"no")]
        assert head.length == 0


STATUSES = {200: 2, 302: 2, 400: 13, 401: 16, 403: 7, 404: 12, 409: 2, 429: 14, 500: 2, 502: 14, 503: 14, 504: 14}


@pytest.mark.parametrize(("status", "grpc"), STATUSES.items())
def test_a_response_that_is_not_grpc_becomes_a_grpc_status(status: int, grpc: int) -> None:
    for chunks in ([], [b"no", b" such"], [b""]):
        head = response(status, b"text/plain", (b"x", b"1"), (b"grpc-message", b"theirs"))
        assert received(call(), head, chunks, [(b"x-trailer", b"1")]) == []
        fields = dict(head.headers)
        assert head.status == status
        assert fields[b"grpc-status"] == b"%d" % grpc
        assert fields[b"grpc-message"] == (b"".join(chunks) or b"theirs")
        assert fields[b"x"] == b"1"
        assert head.length == 0


def test_without_a_body_it_is_known_at_once() -> None:
    head = response(503, None)
    head.length = 0
    assert call().response(head, [], True, []) == []
    assert head.headers == [(b"content-type", WEB + b"+proto"), (b"grpc-status", b"14")]


def test_grpc_of_another_status_than_200_is_not_grpc() -> None:
    head = response(500, GRPC, (b"grpc-status", b"7"))
    assert received(call(), head, [b"boo"], []) == []
    assert dict(head.headers)[b"grpc-status"] == b"2"
    assert dict(head.headers)[b"grpc-message"] == b"boo"


@given(st.lists(st.binary(max_size=8)), st.sampled_from((1, 700)))
def test_the_text_of_an_error_page_is_the_message(parts: list[bytes], times: int) -> None:
    chunks = [part * times for part in parts]
    head = response(500, b"text/html")
    assert received(text_call(), head, chunks, []) == []
    message = dict(head.headers).get(b"grpc-message", b"")
    assert unquote_to_bytes(message) == b"".join(chunks)[:MAX_MESSAGE].rstrip()
    assert all(0x20 <= byte <= 0x7E for byte in message)


def test_a_local_reply_can_stand_in_for_a_response_that_is_held_back() -> None:
    chain = call()
    broken = response(500, b"text/html")
    assert chain.response(broken, [b"half of a"], False, []) is None
    reply = response(504, b"text/plain")
    assert chain.response(reply, [b"too late"], True, []) == []
    assert dict(reply.headers)[b"grpc-message"] == b"too late"
    assert dict(reply.headers)[b"grpc-status"] == b"14"


# ---- the chain


class Holding(Transform):
    """Holds a response back until it is whole, then passes it all in capitals."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def request(self, chunks: list[bytes], done: bool) -> list[bytes]:
        return [chunk + b"1" for chunk in chunks]

    def response(self, chunks: list[bytes], done: bool, trailers: Headers) -> list[bytes] | None:
        self.kept += chunks
        return [b"".join(self.kept).upper()] if done else None


class Noting(Transform):
    """Notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def request(self, chunks: list[bytes], done: bool) -> list[bytes]:
        return [chunk + b"2" for chunk in chunks]

    def response_head(self, head: ResponseHead, alone: bool) -> None:
        self.seen.append((head.status, alone))

    def response(self, chunks: list[bytes], done: bool, trailers: Headers) -> list[bytes] | None:
        self.seen.append((chunks, done))
        return chunks


def test_requests_pass_forwards_and_responses_backwards() -> None:
    first, last = Noting(), Noting()
    chain = Chain([first, Holding(), last])
    assert chain.request([b"a", b"b"], True) == [b"a212", b"b212"]
    head = response()
    assert chain.response(head, [b"x"], False, []) is None
    assert first.seen == []
    assert last.seen == [(200, False), ([b"x"], False)]
    assert chain.response(head, [b"y"], True, []) == [b"XY"]
    assert first.seen == [(200, False), ([b"XY"], True)]
    assert last.seen[2:] == [([b"y"], True)]
