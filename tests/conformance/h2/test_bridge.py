"""RFC 9113 §10.3: what HTTP/2 can carry and HTTP/1.1 would read as something else must not reach an upstream."""

from __future__ import annotations

import hpack
import pytest

from tests.conformance.h2.case import outcome
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, block, data, headers, request
from tests.conformance.h2.stage import Play

REFUSED = ("RST_STREAM PROTOCOL_ERROR", "400")
M, S, A, P = (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")

SMUGGLED = {
    "CR LF in a value": (M, S, A, P, (b"x-a", b"b\r\nx-evil: 1")),
    "a whole request in a value": (M, S, A, P, (b"x-a", b"b\r\n\r\nGET /evil HTTP/1.1\r\nhost: app\r\n\r\n")),
    "LF in a value": (M, S, A, P, (b"x-a", b"b\nx-evil: 1")),
    "CR in a value": (M, S, A, P, (b"x-a", b"b\rx-evil: 1")),
    "NUL in a value": (M, S, A, P, (b"x-a", b"b\0c")),
    "CR LF in a name": (M, S, A, P, (b"x-a: b\r\nx-evil", b"1")),
    "LF in a name": (M, S, A, P, (b"x-a\nx-evil", b"1")),
    "a colon in a name": (M, S, A, P, (b"transfer-encoding: chunked\r\nx", b"1")),
    "a colon behind a name": (M, S, A, P, (b"x-a:", b"1")),
    "a blank behind a name": (M, S, A, P, (b"transfer-encoding ", b"chunked")),
    "a blank before a name": (M, S, A, P, (b" transfer-encoding", b"chunked")),
    "a tab behind a name": (M, S, A, P, (b"content-length\t", b"5")),
    "CR LF in :path": (M, S, A, (b":path", b"/ HTTP/1.1\r\nx-evil: 1\r\nx: ")),
    "a blank in :path": (M, S, A, (b":path", b"/a b")),
    "HTTP/1.1 in :path": (M, S, A, (b":path", b"/ HTTP/1.1")),
    "a tab in :path": (M, S, A, (b":path", b"/a\tb")),
    "a # in :path": (M, S, A, (b":path", b"/a#fragment")),
    "NUL in :path": (M, S, A, (b":path", b"/a\0")),
    "obs-text in :path": (M, S, A, (b":path", b"/\xff")),
    "DEL in :path": (M, S, A, (b":path", b"/\x7f")),
    "an absolute :path": (M, S, A, (b":path", b"http://evil/")),
    "CR LF in :method": ((b":method", b"GET / HTTP/1.1\r\nx-evil: 1\r\nx: "), S, A, P),
    "a blank in :method": ((b":method", b"GET /evil"), S, A, P),
    "a blank behind :method": ((b":method", b"GET "), S, A, P),
    "a colon in :method": ((b":method", b"GE:T"), S, A, P),
    "obs-text in :method": ((b":method", b"G\xc9T"), S, A, P),
    "CR LF in :scheme": (M, (b":scheme", b"http\r\nx-evil: 1"), A, P),
    "a URL in :scheme": (M, (b":scheme", b"http://evil/?"), A, P),
    "rubbish in :scheme": (M, (b":scheme", b"ht tp"), A, P),
    "CR LF in :authority": (M, S, (b":authority", b"app\r\nx-evil: 1"), P),
    "userinfo in :authority": (M, S, (b":authority", b"user@app"), P),
    "user and password in :authority": (M, S, (b":authority", b"user:pass@app"), P),
    "a slash in :authority": (M, S, (b":authority", b"app/evil"), P),
    "a question mark in :authority": (M, S, (b":authority", b"app?evil"), P),
    "a # in :authority": (M, S, (b":authority", b"app#evil"), P),
    "a blank in :authority": (M, S, (b":authority", b"app evil"), P),
    "a comma in :authority": (M, S, (b":authority", b"app,evil"), P),
    "a backslash in :authority": (M, S, (b":authority", b"app\\evil"), P),
    "a port of letters in :authority": (M, S, (b":authority", b"app:http"), P),
    "a broken bracket in :authority": (M, S, (b":authority", b"[::1"), P),
    "obs-text in :authority": (M, S, (b":authority", b"\xffpp"), P),
    "userinfo in Host": (M, S, P, (b"host", b"user@app")),
    "CR LF in Host": (M, S, P, (b"host", b"app\r\nx-evil: 1")),
    "Host other than :authority": (M, S, A, P, (b"host", b"evil")),
    "transfer-encoding beside content-length": (M, S, A, P, (b"content-length", b"0"), (b"transfer-encoding", b"chunked")),
    "connection names a field": (M, S, A, P, (b"connection", b"x-forwarded-for")),
    "a list of content-lengths": (M, S, A, P, (b"content-length", b"0, 0")),
    "CR LF in content-length": (M, S, A, P, (b"content-length", b"0\r\nx-evil: 1")),
    "CR LF in te": (M, S, A, P, (b"te", b"trailers\r\nx-evil: 1")),
    "CR LF in a cookie": (M, S, A, P, (b"cookie", b"a=b\r\nx-evil: 1")),
    "CR LF in the second cookie": (M, S, A, P, (b"cookie", b"a=b"), (b"cookie", b"c\r\nx-evil: 1")),
    "CR LF in traceparent": (M, S, A, P, (b"traceparent", b"00-1\r\nx-evil: 1")),
    "CR LF in x-request-id": (M, S, A, P, (b"x-request-id", b"1\r\nx-evil: 1")),
    "CR LF in x-forwarded-proto": (M, S, A, P, (b"x-forwarded-proto", b"http\r\nx-evil: 1")),
    "CR LF in grpc-timeout": (M, S, A, P, (b"grpc-timeout", b"1S\r\nx-evil: 1")),
    "CR LF in expect": (M, S, A, P, (b"expect", b"100-continue\r\nx-evil: 1")),
    "CR LF in server": (M, S, A, P, (b"server", b"a\r\nx-evil: 1")),
}  # fmt: skip


@pytest.mark.parametrize("where", [b"/", b"/h2/"], ids=["http1", "http2"])
@pytest.mark.parametrize("name", SMUGGLED)
def test_10_3_smuggling(play: Play, name: str, where: bytes) -> None:
    fields = SMUGGLED[name]
    if where != b"/":
        fields = tuple((b":path", where) if field == P else field for field in fields)
    client = play.client()
    client.send(headers(1, block(*fields)))
    got = outcome(client, 1)
    assert client.ask(3, where + b"fine").status == 200
    seen = [message.target for message in play.stage.http1.take() + play.stage.http2.take()]
    assert seen == [where + b"fine"]
    assert got in REFUSED


@pytest.mark.parametrize("where", [b"/", b"/h2/"], ids=["http1", "http2"])
def test_10_3_also_with_indexed_and_huffman_coded_fields(play: Play, where: bytes) -> None:
    """Every form that HPACK has of a field is checked, and again when it is referred to."""
    for stream, index in ((1, True), (3, True), (5, False)):
        client = play.client()
        encoder = hpack.Encoder()
        for number in range(0, 2 * stream + 1, 2):
            fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", where)]
            evil = (
                hpack.HeaderTuple(b"x-a", b"b\r\nx-evil: 1") if index else hpack.NeverIndexedHeaderTuple(b"x-a", b"\n")
            )
            client.send(headers(number + 1, encoder.encode([*fields, evil], huffman=True)))
            assert outcome(client, number + 1) in REFUSED
    assert not play.stage.http1.take()
    assert not play.stage.http2.take()


SAFE = {
    "a :path of two slashes": ((b":path", b"//evil/x"),),
    "a :path with everything that it may hold": ((b":path", b"/!$&'()*+,;=:@-._~%2f%00?/?a=b;c&d[]|^`{}\""),),
    "a name of all that a token may hold": ((b"!#$%&'*+-.^_`|~09az", b"x"),),
    "an :authority with a port": ((b":authority", b"app:8080"),),
    "an :authority of an IPv6 address": ((b":authority", b"[::1]:8080"),),
    "a value that looks like a header": ((b"x-a", b"transfer-encoding: chunked"),),
    "fields that HTTP/1.1 frames by, as values": ((b"x-a", b"0"), (b"x-content-length", b"5")),
}


@pytest.mark.parametrize("name", SAFE)
def test_10_3_odd_but_safe(play: Play, name: str) -> None:
    """The strict reader behind judges what HTTP/1.1 it becomes."""
    change = dict(SAFE[name])
    pseudo = [(key, change.pop(key, value)) for key, value in (M, S, A, P)]
    client = play.client()
    client.send(headers(1, block(*pseudo, *change.items())))
    assert outcome(client, 1) == "200"
    (seen,) = play.stage.http1.take()
    assert seen.target == dict(pseudo)[b":path"]
    assert seen.get(b"host") == dict(pseudo)[b":authority"]
    for key, value in change.items():
        assert seen.get(key) == value


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"])
def test_10_3_a_body_where_none_is_expected_stays_a_body(play: Play, method: bytes) -> None:
    client = play.client()
    evil = b"GET /evil HTTP/1.1\r\nhost: app\r\n\r\n"
    client.send(headers(1, request(method, b"/first"), END_HEADERS), data(1, evil, END_STREAM))
    outcome(client, 1)
    assert client.ask(3, b"/second").status == 200
    first, second = play.stage.http1.take()
    assert (first.method, first.target, first.body) == (method, b"/first", evil)
    assert second.target == b"/second"


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_10_3_a_body_that_looks_like_chunks(play: Play, method: bytes) -> None:
    client = play.client()
    evil = b"0\r\n\r\nGET /evil HTTP/1.1\r\nhost: app\r\n\r\n"
    client.send(headers(1, request(method, b"/first"), END_HEADERS), data(1, evil[:1]), data(1, evil[1:], END_STREAM))
    assert outcome(client, 1) == "200"
    (first,) = play.stage.http1.take()
    assert first.body == evil


def test_10_3_a_long_body_behind_a_short_content_length(play: Play) -> None:
    """No octet beyond the content-length may be written behind the request."""
    client = play.client()
    evil = b"GET /evil HTTP/1.1\r\nhost: app\r\n\r\n"
    client.send(
        headers(1, request(b"POST", b"/first", (b"content-length", b"5")), END_HEADERS), data(1, b"hello" + evil)
    )
    assert outcome(client, 1) in REFUSED
    whole = headers(3, request(b"POST", b"/third", (b"content-length", b"5")), END_HEADERS) + data(3, b"hello")
    client.send(whole, data(3, evil, END_STREAM))
    assert outcome(client, 3) in REFUSED
    assert client.ask(5, b"/fine").status == 200
    assert [seen.target for seen in play.stage.http1.take() if seen.target != b"/third"] == [b"/fine"]


def test_10_3_what_our_hop_says_of_itself_is_not_believed_of_others(play: Play) -> None:
    """x-pillion-unsent is between sidecars only; x-forwarded-client-cert is of the peer's certificate."""
    client = play.client()
    assert (
        client.ask(1, b"/", (b"x-pillion-unsent", b"1"), (b"x-forwarded-client-cert", b"URI=spiffe://evil")).status
        == 200
    )
    (seen,) = play.stage.http1.take()
    assert seen.get(b"x-pillion-unsent") is None
    assert seen.get(b"x-forwarded-client-cert") is None
