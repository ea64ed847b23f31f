"""What must not get through a proxy, and what must stay bounded while it is read."""

from __future__ import annotations

import pytest

from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.request import RequestReader
from proxy.http.h1.response import ResponseReader
from proxy.http.heads import NO_UPGRADE, RequestMessage

LIMIT = 60 * 1024


def request(data: bytes, step: int = 1 << 30) -> RequestMessage:
    """The one request in `data`."""
    reader = RequestReader(LIMIT, 100)
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    message = reader.message
    if message is None or (message.done and reader.waiting):  # nothing was wrong with it so far
        reader.next()
    assert message is not None
    return message


def response(data: bytes, method: bytes = b"GET", step: int = 1 << 30) -> ResponseReader:
    reader = ResponseReader(LIMIT, 100)
    reader.expect(method, NO_UPGRADE)
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    return reader


@pytest.mark.parametrize(
    "host",
    [b"a b", b"a/b", b"a?b", b"a#b", b"a\\b", b'a"b', b"<a>", b"a,b", b"caf\xc3\xa9", b"a\tb", b"a{b}", b"a:1:2", b"a:x",
     b"[::1", b"::1]", b"a:99999999", b"u@a"],
)  # fmt: skip
def test_hosts_that_are_none(host: bytes) -> None:
    for data in (b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n", b"GET http://%b/x HTTP/1.1\r\nhost: a\r\n\r\n"):
        if b"http://" in data and host in (b"a/b", b"a?b"):
            continue  # there it is the path's beginning
        with pytest.raises(ProtocolError):
            request(data % host)


@pytest.mark.parametrize(
    "host", [b"a", b"a.b-c_d", b"a:80", b"a:", b"[::1]:80", b"[::1]", b"127.0.0.1:1", b"x~y", b"%41"]
)
def test_hosts_that_are(host: bytes) -> None:
    assert request(b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % host).head.authority == host
    assert request(b"GET http://%b?q HTTP/1.1\r\nhost: b\r\n\r\n" % host).head.target == b"/?q"


@pytest.mark.parametrize(
    "data",
    [
        b"GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http:/x HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET ftp://a/x HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET a/x HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /a\x7fb HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551617\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_requests_that_two_readers_could_read_differently(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        request(data)
    with pytest.raises(ProtocolError):
        request(data, 1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "^HTTP/2 is off on this port"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "^this port speaks plain HTTP, and the client TLS$"),
        (b"hello\r\n", "^a request line that is not three words"),
        (b"GET /\r\n\r\n", "^a request line that is not three words"),
    ],
)
def test_another_protocol_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        request(data)


def test_a_length_is_written_anew() -> None:
    head = request(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 005\r\n\r\nhello").head
    assert head.length == 5


def test_what_connection_names_cannot_take_our_own_fields() -> None:
    data = (
        b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close, host, content-length, x-forwarded-client-cert, traceparent, x\r\n"
        b"content-length: 5\r\nx-forwarded-client-cert: c\r\ntraceparent: t\r\nx: 1\r\n\r\nhello"
    )
    head = request(data).head
    assert (head.authority, head.length, head.client_cert, head.traceparent) == (b"a", 5, b"c", b"t")
    assert head.headers == []


def test_trailers_that_must_not_be_believed_are_dropped() -> None:
    forbidden = [
        b"host", b"authorization", b"cookie", b"set-cookie", b"content-type",
        b"content-encoding", b"content-range", b"cache-control", b"te", b"connection", b"x-forwarded-client-cert",
        b"x-request-id", b"traceparent", b"expect", b"range", b"if-match", b"max-forwards", b"location", b"vary",
        b"x-forwarded-for", b"proxy-authorization", b"trailer", b"date", b"age", b"expires", b"retry-after", b"warning",
    ]  # fmt: skip
    section = b"".join(b"%b: 1\r\n" % name for name in forbidden) + b"x-checksum: 2\r\ngrpc-status: 0\r\n\r\n"
    kept = [(b"x-checksum", b"2"), (b"grpc-status", b"0")]
    body = b"5\r\nhello\r\n0\r\n" + section
    assert request(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body).trailers == kept
    message = response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body).message
    assert message is not None
    assert message.trailers == kept


@pytest.mark.parametrize("rest", [b"5;" + b"x" * 200_000, b"0\r\nx: " + b"y" * 200_000, b"0" * 200_000])
def test_what_surrounds_a_body_is_bounded(rest: bytes) -> None:
    with pytest.raises(ProtocolError):
        request(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + rest, 16384)
    with pytest.raises(ProtocolError):
        response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + rest, step=16384)


def test_a_body_is_not() -> None:
    big = b"x" * 1_000_000
    for framing in (
        b"content-length: 1000000\r\n\r\n" + big,
        b"transfer-encoding: chunked\r\n\r\nf4240\r\n" + big + b"\r\n0\r\n\r\n",
    ):
        assert request(b"POST / HTTP/1.1\r\nhost: a\r\n" + framing, 16384).done
        message = response(b"HTTP/1.1 200 OK\r\n" + framing, step=16384).message
        assert message is not None
        assert message.done


def test_many_requests_in_one_read_are_read_one_by_one() -> None:
    upgrade = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    reader = RequestReader(LIMIT, 100)
    reader.feed(upgrade * 4000)
    for _ in range(4000):
        assert reader.message is not None
        assert reader.message.done
        assert reader.message.head.upgrade == b"x"
        reader.next()
    assert reader.message is None
    assert not reader.waiting


@pytest.mark.parametrize("method", [b"FETCH", b"get", b"M-SEARCH", b"X!"])
def test_methods_are_any_token(method: bytes) -> None:
    assert request(method + b" / HTTP/1.1\r\nhost: a\r\n\r\n").head.method == method


def test_a_tunnel_takes_what_already_came() -> None:
    reader = RequestReader(LIMIT, 100)
    reader.feed(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nearly")
    message = reader.message
    assert message is not None
    assert message.done
    reader.tunnel()
    reader.feed(b"later")
    assert (message.body, message.done) == ([b"early", b"later"], False)
    assert reader.end()
    assert message.done


def test_interim_responses_are_bounded() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    message = response(interim * 10 + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", step=7).message
    assert message is not None
    assert message.done
    with pytest.raises(ProtocolError, match="interim"):
        response(interim * 1000)


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(status: int) -> None:
    for field in (b"", b"content-length: 5\r\n" if status == 304 else b"content-length: 0\r\n"):
        reader = response(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, field))
        assert reader.message is not None
        assert reader.message.done
        assert reader.message.head.keep_alive
        assert not reader.excess
        reader.feed(b"hello")
        assert reader.excess


def test_answers_to_head() -> None:
    for field in (b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b""):
        reader = response(b"HTTP/1.1 200 OK\r\n%b\r\n" % field, b"HEAD")
        assert reader.message is not None
        assert reader.message.done
        reader.expect(b"GET", NO_UPGRADE)
        reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        assert reader.message.body == [b"ok"]
    assert response(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"HEAD").excess


def test_http10_upstreams() -> None:
    plain = response(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").message
    kept = response(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok").message
    assert plain is not None
    assert kept is not None
    assert (plain.head.keep_alive, kept.head.keep_alive) == (False, True)


def test_routes_see_what_was_lifted_out_of_the_fields() -> None:
    head = request(
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: WebSocket\r\nte: trailers\r\nx-request-id:\r\n\r\n"
    ).head
    assert (head.find(b"upgrade"), head.find(b"te"), head.find(b"x-request-id")) == (b"websocket", b"trailers", None)
    head = request(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nab").head
    assert (head.find(b"content-length"), head.find(b"expect")) == (b"2", b"100-continue")
    assert head.find(b"transfer-encoding") is None


def test_many_tiny_chunks_are_few_objects() -> None:
    message = request(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 40_000)
    assert sum(map(len, message.body)) == 80_000
    assert len(message.body) < 100
