"""RFC 9113 §8 towards clients: which field sections are requests, and what the upstream gets of them."""

from __future__ import annotations

import pytest

from tests.conformance.h2.case import Case, check, outcome
from tests.conformance.h2.frames import (
    END_HEADERS,
    END_STREAM,
    block,
    continuation,
    data,
    headers,
    literal,
    ping,
    request,
    rst_stream,
)
from tests.conformance.h2.stage import Play

M, S, A, P = (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")
POST = (b":method", b"POST")
REFUSED = "RST_STREAM PROTOCOL_ERROR | 400"
"""A malformed request (§8.1.1)."""
OPEN = headers(1, request(b"POST"), END_HEADERS)


def bare(*fields: tuple[bytes, bytes]) -> bytes:
    """A request of nothing but these fields."""
    return headers(1, block(*fields))


def extra(name: bytes, value: bytes) -> bytes:
    """A GET with one more field."""
    return headers(1, request(b"GET", b"/", (name, value)))


def body(length: bytes, *parts: bytes) -> bytes:
    """A POST with a content-length, and DATA frames."""
    frames = [data(1, part, END_STREAM if number == len(parts) - 1 else 0) for number, part in enumerate(parts)]
    return headers(1, request(b"POST", b"/", (b"content-length", length)), END_HEADERS) + b"".join(frames)


PSEUDO = [
    Case("8.3 an unknown pseudo-header field", bare(M, S, A, P, (b":test", b"x")), REFUSED),
    Case("8.3 the pseudo-header field of responses", bare(M, S, A, P, (b":status", b"200")), REFUSED),
    Case("8.3 a pseudo-header field behind a regular one", bare(M, S, A, (b"x-a", b"b"), P), REFUSED),
    Case("8.3 a pseudo-header field with a capital", bare(M, S, A, (b":Path", b"/")), REFUSED),
    Case("8.3 a colon alone", bare(M, S, A, P, (b":", b"x")), REFUSED),
    Case("8.3.1 no :method", bare(S, A, P), REFUSED),
    Case("8.3.1 no :scheme", bare(M, A, P), REFUSED),
    Case("8.3.1 no :path", bare(M, S, A), REFUSED),
    Case("8.3.1 :method twice", bare(M, M, S, A, P), REFUSED),
    Case("8.3.1 :scheme twice", bare(M, S, S, A, P), REFUSED),
    Case("8.3.1 :authority twice", bare(M, S, A, A, P), REFUSED),
    Case("8.3.1 :path twice", bare(M, S, A, P, P), REFUSED),
    Case("8.3.1 :method twice, once empty", bare((b":method", b""), M, S, A, P), REFUSED),
    Case("8.3.1 an empty :method", bare((b":method", b""), S, A, P), REFUSED),
    Case("8.3.1 an empty :scheme", bare(M, (b":scheme", b""), A, P), REFUSED),
    Case("8.3.1 an empty :path", bare(M, S, A, (b":path", b"")), REFUSED),
    Case("8.3.1 an empty :authority without Host", bare(M, S, (b":authority", b""), P), REFUSED),
    Case("8.3.1 neither :authority nor Host", bare(M, S, P), REFUSED),
    Case("8.3.1 Host instead of :authority", bare(M, S, P, (b"host", b"app")), "200"),
    Case("8.3.1 Host that is :authority again", bare(M, S, A, P, (b"host", b"app")), "200"),
    Case("8.3.1 Host that is another", bare(M, S, A, P, (b"host", b"other")), REFUSED),
    Case("8.3.1 Host twice", bare(M, S, P, (b"host", b"app"), (b"host", b"app")), REFUSED),
    Case("8.3.1 OPTIONS *", bare((b":method", b"OPTIONS"), S, A, (b":path", b"*")), "200"),
    Case("8.3.1 GET *", bare(M, S, A, (b":path", b"*")), REFUSED),
    Case("8.3.1 a :path without a slash", bare(M, S, A, (b":path", b"index")), REFUSED),
    Case("8.3.1 :scheme https on a cleartext connection", bare(M, (b":scheme", b"https"), A, P), "200"),
    Case("8.3.1 :scheme ftp", bare(M, (b":scheme", b"ftp"), A, P), REFUSED),
    Case("8.3.1 :protocol without extended CONNECT", bare(M, S, A, P, (b":protocol", b"websocket")), REFUSED),
    Case("8441-4 extended CONNECT where it was not offered", bare((b":method", b"CONNECT"), S, A, P, (b":protocol", b"websocket")), REFUSED),
    Case("8.5 CONNECT with :path", bare((b":method", b"CONNECT"), (b":authority", b"app:80"), P), REFUSED),
    Case("8.5 CONNECT with :scheme", bare((b":method", b"CONNECT"), S, (b":authority", b"app:80")), REFUSED),
    Case("8.5 CONNECT without :authority", bare((b":method", b"CONNECT")), REFUSED),
    Case("8.5 CONNECT without a port", bare((b":method", b"CONNECT"), A), REFUSED),
    Case("8.5 CONNECT that no route allows", bare((b":method", b"CONNECT"), (b":authority", b"app:80")), "404 | 403 | RST_STREAM CONNECT_ERROR"),
]  # fmt: skip

FIELDS = [
    Case("8.2.1 a capital in a name", extra(b"X-Test", b"x"), REFUSED),
    Case("8.2.1 one capital at the end", extra(b"x-tesT", b"x"), REFUSED),
    Case("8.2.1 an empty name", extra(b"", b"x"), REFUSED),
    *(Case(f"8.2.1 the octet {octet:#04x} in a name", extra(b"x-%c-y" % octet, b"x"), REFUSED) for octet in (0, 10, 13, 32, 34, 40, 44, 47, 58, 59, 61, 64, 91, 123, 127, 128, 255)),
    *(Case(f"8.2.1 the octet {octet:#04x} in a value", extra(b"x-a", b"a%cb" % octet), REFUSED) for octet in (0, 10, 13)),
    *(Case(f"8.2.1 a value that begins with {octet:#04x}", extra(b"x-a", b"%cb" % octet), REFUSED) for octet in (9, 10, 13, 32)),
    *(Case(f"8.2.1 a value that ends with {octet:#04x}", extra(b"x-a", b"b%c" % octet), REFUSED) for octet in (0, 9, 10, 13, 32)),
    Case("8.2.1 obs-text in a value", extra(b"x-a", b"a\x80\xff"), "200"),
    Case("8.2.1 an empty value", extra(b"x-a", b""), "200"),
    Case("8.2.1 a tab inside a value", extra(b"x-a", b"a\tb"), "200"),
    Case("8.2.2 connection: keep-alive", extra(b"connection", b"keep-alive"), REFUSED),
    Case("8.2.2 connection: close", extra(b"connection", b"close"), REFUSED),
    Case("8.2.2 keep-alive", extra(b"keep-alive", b"timeout=5"), REFUSED),
    Case("8.2.2 proxy-connection", extra(b"proxy-connection", b"keep-alive"), REFUSED),
    Case("8.2.2 transfer-encoding", extra(b"transfer-encoding", b"chunked"), REFUSED),
    Case("8.2.2 transfer-encoding: identity", extra(b"transfer-encoding", b"identity"), REFUSED),
    Case("8.2.2 upgrade", extra(b"upgrade", b"websocket"), REFUSED),
    Case("8.2.2 te: trailers", extra(b"te", b"trailers"), "200"),
    Case("8.2.2 te: gzip", extra(b"te", b"gzip"), REFUSED),
    Case("8.2.2 te: trailers, deflate;q=0.5", extra(b"te", b"trailers, deflate;q=0.5"), REFUSED),
    Case("8.2.2 two te", headers(1, request(b"GET", b"/", (b"te", b"trailers"), (b"te", b"gzip"))), REFUSED),
]  # fmt: skip

CONTENT = [
    Case("8.1.1 content-length larger than one DATA frame", body(b"10", b"hello"), "RST_STREAM PROTOCOL_ERROR | 400"),
    Case("8.1.1 content-length smaller than one DATA frame", body(b"3", b"hello"), "RST_STREAM PROTOCOL_ERROR | 400"),
    Case("8.1.1 content-length larger than several DATA frames", body(b"11", b"hello", b"hello"), REFUSED),
    Case("8.1.1 content-length smaller than several DATA frames", body(b"9", b"hello", b"hello"), REFUSED),
    Case("8.1.1 content-length that is right", body(b"10", b"hello", b"", b"hello"), "200"),
    Case("8.1.1 content-length of 0 and DATA", body(b"0", b"x"), REFUSED),
    Case("8.1.1 content-length of 0 and an empty end", body(b"0", b""), "200"),
    Case("8.1.1 content-length and END_STREAM on the head", extra(b"content-length", b"5"), REFUSED),
    Case("8.1.1 content-length of 0 and END_STREAM on the head", extra(b"content-length", b"0"), "200"),
    Case("8.1.1 content-length and trailers too early", headers(1, request(b"POST", b"/", (b"content-length", b"5")), END_HEADERS) + data(1, b"abc") + headers(1, block((b"x-t", b"1"))), REFUSED),
    *(Case(f"8.1.1 content-length {value!r}", extra(b"content-length", value), REFUSED) for value in (b"+0", b"-1", b"0x0", b"0,1", b"", b"0 0", b"9" * 30, b"\xd9\xa0")),
    Case("8.1.1 two content-lengths that differ", headers(1, request(b"POST", b"/", (b"content-length", b"5"), (b"content-length", b"6")), END_HEADERS) + data(1, b"hello", 1), REFUSED),
    Case("8.1 DATA before HEADERS", data(1, b"x"), "GOAWAY PROTOCOL_ERROR"),
    Case("8.1 trailers without END_STREAM", OPEN + data(1, b"x") + headers(1, block((b"x-t", b"1")), END_HEADERS), REFUSED),
    Case("8.1 trailers", OPEN + data(1, b"x") + headers(1, block((b"x-t", b"1"))), "200"),
    Case("8.1 trailers without content", OPEN + headers(1, block((b"x-t", b"1"))), "200"),
    Case("8.1 DATA behind trailers", headers(1, request(b"POST", b"/hold"), END_HEADERS) + headers(1, block((b"x-t", b"1"))) + data(1, b"x"), "RST_STREAM STREAM_CLOSED | GOAWAY STREAM_CLOSED"),
    Case("8.1 an empty trailer section", OPEN + data(1, b"x") + headers(1, b""), "200"),
    Case("8.3 a pseudo-header field in trailers", OPEN + headers(1, block((b":method", b"GET"))), REFUSED),
    Case("8.3 :status in trailers", OPEN + headers(1, block((b"x-t", b"1"), (b":status", b"200"))), REFUSED),
    Case("8.2.1 a capital in trailers", OPEN + headers(1, block((b"X-T", b"1"))), REFUSED),
    Case("8.2.1 CR LF in trailers", OPEN + headers(1, block((b"x-t", b"1\r\nx: y"))), REFUSED),
    Case("8.2.2 connection in trailers", OPEN + headers(1, block((b"connection", b"close"))), REFUSED),
    Case("8.2.2 transfer-encoding in trailers", OPEN + headers(1, block((b"transfer-encoding", b"chunked"))), REFUSED),
    Case("8.1.1 content-length in trailers", OPEN + headers(1, block((b"content-length", b"0"))), REFUSED + " | 200"),
]  # fmt: skip


ALL = [*PSEUDO, *FIELDS, *CONTENT]
ROOT = literal(b":path", b"/")


def to_http2(case: Case) -> Case:
    """The same with the path of the HTTP/2 upstream. HEADERS is the first frame."""
    size = int.from_bytes(case.sent[:3], "big")
    block, rest = case.sent[9 : 9 + size], case.sent[9 + size :]
    sent = headers(1, block.replace(ROOT, literal(b":path", b"/h2/")), case.sent[4]) + rest
    return Case(case.name + " (http2)", sent, case.want)


@pytest.mark.parametrize("case", [*ALL, *(to_http2(case) for case in ALL if ROOT in case.sent)], ids=str)
def test_requests(play: Play, case: Case) -> None:
    """Also that nothing of a refused one reaches the upstream as a whole request."""
    check(play.client(), case)
    if case.want == REFUSED:
        assert not play.stage.http1.take()
        assert not play.stage.http2.take()


def test_8_1_1_a_malformed_request_leaves_the_connection(play: Play) -> None:
    client = play.client()
    for stream in (1, 3, 5, 7):
        client.send(headers(stream, request(b"GET", b"/", (b"Bad", b"x"))))
        assert outcome(client, stream) in REFUSED
    assert client.ask(9).status == 200


def test_8_2_3_cookie_crumbs_become_one_cookie(play: Play) -> None:
    client = play.client()
    crumbs = ((b"cookie", b"a=b"), (b"x-between", b"1"), (b"cookie", b"c=d; e=f"), (b"cookie", b"g=h"))
    assert client.ask(1, b"/", *crumbs).status == 200
    (seen,) = play.stage.http1.take()
    assert [value for name, value in seen.fields if name == b"cookie"] == [b"a=b; c=d; e=f; g=h"]
    assert client.ask(3, b"/h2/", *crumbs).status == 200
    (seen,) = play.stage.http2.take()
    assert b"; ".join(value for name, value in seen.fields if name == b"cookie") == b"a=b; c=d; e=f; g=h"


def test_8_2_3_set_cookie_is_never_joined(play: Play) -> None:
    client = play.client()
    assert client.ask(1, b"/crumbs").values(b"set-cookie") == [b"a=1", b"b=2"]
    assert client.ask(3, b"/h2/crumbs").values(b"set-cookie") == [b"a=1", b"b=2"]


@pytest.mark.parametrize("prefix", [b"/", b"/h2/"], ids=["http1", "http2"])
def test_8_1_trailers_pass_both_ways(play: Play, prefix: bytes) -> None:
    client = play.client()
    client.send(headers(1, request(b"POST", prefix), END_HEADERS), data(1, b"hello"))
    client.send(headers(1, block((b"x-sum", b"123"), (b"x-more", b"\xff"))))
    answer = client.answer(1)
    assert answer.body == b"hello"
    assert answer.trailers == [(b"x-checksum", b"abc")]
    (seen,) = play.stage.http1.take() + play.stage.http2.take()
    assert [pair for pair in seen.trailers if pair[0].startswith(b"x-")] == [(b"x-sum", b"123"), (b"x-more", b"\xff")]


@pytest.mark.parametrize("prefix", [b"/", b"/h2/"], ids=["http1", "http2"])
def test_8_3_the_answer_has_only_status(play: Play, prefix: bytes) -> None:
    answer = play.client().ask(1, prefix)
    assert [name for name, _ in answer.fields if name.startswith(b":")] == [b":status"]
    assert answer.fields[0] == (b":status", b"200")
    for name, _ in answer.fields:
        assert name == name.lower()
        assert name not in (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection")


@pytest.mark.parametrize("prefix", [b"/", b"/h2/"], ids=["http1", "http2"])
def test_8_3_1_the_request_in_the_upstreams_terms(play: Play, prefix: bytes) -> None:
    client = play.client()
    more = ((b"x-a", b"1"), (b"x-b", b""), (b"x-a", b"2"), (b"te", b"trailers"), (b"accept", b"*/*"))
    assert client.ask(1, prefix + b"a/%20?x=y&z", *more).status == 200
    (seen,) = play.stage.http1.take() + play.stage.http2.take()
    assert (seen.method, seen.target) == (b"GET", prefix + b"a/%20?x=y&z")
    assert [value for name, value in seen.fields if name == b"x-a"] == [b"1", b"2"]
    assert (b"x-b", b"") in seen.fields
    assert (b"accept", b"*/*") in seen.fields
    if prefix == b"/":
        assert seen.get(b"host") == b"app"
        assert not [
            name
            for name, _ in seen.fields
            if name.startswith(b":") or name in (b"content-length", b"transfer-encoding")
        ]
    else:
        pseudo = {name: value for name, value in seen.fields if name.startswith(b":")}
        assert pseudo == {
            b":method": b"GET",
            b":scheme": b"http",
            b":authority": b"app",
            b":path": prefix + b"a/%20?x=y&z",
        }
        assert seen.get(b"te") == b"trailers"
        assert seen.get(b"host") is None


@pytest.mark.parametrize("prefix", [b"/", b"/h2/"], ids=["http1", "http2"])
@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"M-SEARCH"]
)
def test_8_3_1_methods(play: Play, method: bytes, prefix: bytes) -> None:
    client = play.client()
    client.send(headers(1, request(method, prefix)))
    answer = client.answer(1)
    assert answer.status == 200
    assert answer.body == (b"" if method == b"HEAD" else b"fine")
    (seen,) = play.stage.http1.take() + play.stage.http2.take()
    assert seen.method == method


def test_8_1_a_head_answer_keeps_its_content_length(play: Play) -> None:
    client = play.client()
    client.send(headers(1, request(b"HEAD", b"/")))
    answer = client.answer(1)
    assert answer.get(b"content-length") == b"4"
    assert answer.body == b""


@pytest.mark.parametrize("prefix", [b"/", b"/h2/"], ids=["http1", "http2"])
def test_8_1_a_body_of_unknown_length(play: Play, prefix: bytes) -> None:
    client = play.client()
    client.send(headers(1, request(b"POST", prefix), END_HEADERS))
    for part in (b"one ", b"two ", b"three"):
        client.send(data(1, part), ping())
    client.send(data(1, b"", END_STREAM))
    assert client.answer(1).body == b"one two three"
    (seen,) = play.stage.http1.take() + play.stage.http2.take()
    assert seen.body == b"one two three"
    if prefix == b"/":
        assert seen.framing == "chunked"


def test_8_7_a_reset_request_never_ends_for_the_upstream(play: Play) -> None:
    """What was cut off must not look whole."""
    client = play.client()
    client.send(headers(1, request(b"POST", b"/"), END_HEADERS), data(1, b"half of it"))
    client.sync()
    client.send(rst_stream(1))
    assert client.ask(3, b"/next").status == 200
    assert [seen.target for seen in play.stage.http1.take()] == [b"/next"]


def test_10_5_1_a_head_over_the_limit(play: Play) -> None:
    client = play.client()
    limit = client.settings.get(6, 60 * 1024)
    many = request(b"GET", b"/", *((b"x-%d" % number, b"v" * 1000) for number in range(limit // 1000 + 2)))
    first, rest = many[:16_384], many[16_384:]
    sent = headers(1, first, END_STREAM)
    while rest:
        part, rest = rest[:16_384], rest[16_384:]
        sent += continuation(1, part, 0 if rest else END_HEADERS)
    check(client, Case("10.5.1", sent, "431 | RST_STREAM ENHANCE_YOUR_CALM | RST_STREAM PROTOCOL_ERROR"))
