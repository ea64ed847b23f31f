"""What holds for any message, end to end: client → sidecar → sidecar → app and back, over real sockets.

docs/http1.md lists what a sidecar removes, adds and rewrites; everything else must arrive as it was sent.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.conformance.pair import running_pair
from tests.conformance.wire import Fields, Message

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"upgrade", b"transfer-encoding", b"content-length"}  # fmt: skip
"""What one hop says to the next, and no further (docs/http1.md)."""
REQUEST_OWN = {b"host", b"expect", b"x-forwarded-proto", b"x-request-id", b"x-forwarded-client-cert",
    b"x-pillion-unsent", b"traceparent"}  # fmt: skip
"""What a sidecar writes itself into a request, or takes out."""
RESPONSE_OWN = {b"server", b"x-pillion-unsent", b"date", b"upgrade"}
"""The same for a response. Date is only moved when the app has set it, see its own test."""

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def names(own: set[bytes]) -> st.SearchStrategy[bytes]:
    """Field names: random tokens, and those that are close to something."""
    tokens = st.text(TOKEN, min_size=1, max_size=20).map(str.encode)
    known = st.sampled_from([b"Accept", b"cookie", b"Set-Cookie", b"X-Forwarded-For", b"via", b"Trailer", b"Age",
        b"Content-Type",
                             b"Content_Length", b"Transfer-Encodin", b"hosts", b"authorization", b"Etag",
                             b"x-envoy-foo"])  # fmt: skip
    return (tokens | known).filter(lambda name: name.lower() not in HOP_BY_HOP | own)


VALUES = st.lists(st.sampled_from([*range(0x21, 0x7F), *range(0x80, 0x100), 0x20, 0x09]), max_size=40).map(
    lambda octets: bytes(octets).strip(b" \t")
)


def fields(own: set[bytes]) -> st.SearchStrategy[Fields]:
    """Random fields, many names twice, some lines too."""
    fresh = st.tuples(names(own), VALUES)
    return st.lists(fresh, max_size=12).flatmap(
        lambda some: st.lists(st.sampled_from(some), max_size=25) if some else st.just([])
    )


def lower(sent: Fields) -> Fields:
    """As they must arrive: names in lower case, all in their order, several of a name apart."""
    return [(name.lower(), value) for name, value in sent]


def without(got: Fields, removed: set[bytes]) -> Fields:
    return [(name, value) for name, value in got if name not in removed]


def lines(sent: Fields) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in sent)


def chunked(chunks: list[bytes], trailers: Fields = []) -> bytes:  # noqa: B006  # never changed
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n%b\r\n" % lines(
        trailers
    )


def places(data: bytes, share: list[float]) -> list[int]:
    """Shares of the whole as places to cut at."""
    return sorted({int(part * len(data)) for part in share} - {0, len(data)})


CUTS = st.lists(st.floats(0, 1, exclude_max=True), max_size=6)


def test_request_fields_survive_a_pair() -> None:
    with running_pair() as (pair, runner):
        pair.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

        @QUICK
        @given(fields(REQUEST_OWN))
        @example([(b"X", b""), (b"x", b"1"), (b"Y", b"2"), (b"x", b"")])
        def check(sent: Fields) -> None:
            (answer,) = runner.run(pair.talk(b"GET /a?b HTTP/1.1\r\nHost: app\r\n%b\r\n" % lines(sent), []))
            assert answer.status == 200
            (got,) = pair.got
            assert (got.method, got.target, got.get(b"host"), got.body) == (b"GET", b"/a?b", b"app", b"")
            assert without(got.fields, REQUEST_OWN | HOP_BY_HOP) == lower(sent)
            assert [value for name, value in got.fields if name == b"x-forwarded-proto"] == [b"http"]

        check()


def test_response_fields_survive_a_pair() -> None:
    with running_pair() as (pair, runner):

        @QUICK
        @given(fields(RESPONSE_OWN), st.sampled_from([200, 201, 299, 302, 404, 500, 503, 599]), VALUES)
        def check(sent: Fields, status: int, reason: bytes) -> None:
            pair.answer = b"HTTP/1.1 %d %b\r\nContent-Length: 2\r\n%b\r\nok" % (status, reason, lines(sent))
            (answer,) = runner.run(pair.talk(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n", []))
            assert (answer.status, answer.body) == (status, b"ok")
            if reason:
                assert answer.reason == reason
            assert without(answer.fields, RESPONSE_OWN | HOP_BY_HOP) == lower(sent)
            assert answer.get(b"server") == b"pillion"
            date = answer.get(b"date")
            assert date is not None
            assert b"," in date

        check()


BODY = st.lists(
    st.binary(max_size=200) | st.integers(1, 70_000).map(lambda size: bytes(range(256)) * (size // 256 + 1)), max_size=5
)
TRAILER_NAMES = st.sampled_from([b"X-Sum", b"grpc-status", b"grpc-message", b"x-a", b"X-B"])
TRAILERS = st.lists(st.tuples(TRAILER_NAMES, VALUES), max_size=4)


def test_request_bodies_survive_a_pair() -> None:
    with running_pair() as (pair, runner):
        pair.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

        @QUICK
        @given(st.sampled_from([b"POST", b"PUT", b"GET", b"FOO"]), BODY, TRAILERS, st.booleans(), CUTS)
        @example(b"POST", [], [], True, [])
        @example(b"POST", [], [], False, [])
        def check(method: bytes, chunks: list[bytes], trailers: Fields, with_length: bool, cuts: list[float]) -> None:
            body = b"".join(chunks)
            head = method + b" / HTTP/1.1\r\nHost: app\r\n"
            if with_length:
                sent = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
            else:
                sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(chunks, trailers)
            (answer,) = runner.run(pair.talk(sent, places(sent, cuts)))
            assert answer.status == 200
            (got,) = pair.got
            assert got.method == method
            assert got.body == body
            assert got.framing == (
                "none"
                if with_length and not body and method in (b"GET", b"FOO")
                else "length"
                if with_length
                else "chunked"
            )
            assert got.trailers == ([] if with_length else lower(trailers))

        check()


def test_response_bodies_survive_a_pair() -> None:
    with running_pair() as (pair, runner):

        @QUICK
        @given(st.sampled_from(["length", "chunked", "close"]), BODY, TRAILERS, CUTS)
        def check(framing: str, chunks: list[bytes], trailers: Fields, cuts: list[float]) -> None:
            body = b"".join(chunks)
            pair.close = framing == "close"
            if framing == "length":
                pair.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            elif framing == "chunked":
                pair.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(chunks, trailers)
            else:
                pair.answer = b"HTTP/1.1 200 OK\r\n\r\n" + body
            pair.cuts = places(pair.answer, cuts)
            (answer,) = runner.run(pair.talk(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n", []))
            assert answer.body == body
            assert answer.framing == ("length" if framing == "length" else "chunked")
            assert answer.trailers == (lower(trailers) if framing == "chunked" else [])

        check()


REQUESTS = [
    b"GET /1 HTTP/1.1\r\nHost: app\r\nX: 1\r\n\r\n",
    b"POST /2 HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nX: \tcaf\xc3\xa9 \r\n\r\nhello",
    b"POST /3 HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([b"hel", b"lo", b"\r\n0\r\n\r\n"],
    [(b"X-Sum", b"7")]),
    b"\r\nPUT /4 HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nConnection: x-a\r\nX-A: 1\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
    b"GET http://app:80/5?q HTTP/1.1\r\nHost: other\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\nDate: x\r\n\r\nhello",
    b"HTTP/1.1 404 Not Here\r\nTransfer-Encoding: chunked\r\nDate: x\r\n\r\n" + chunked([b"a" * 300, b"\r\n"],
    [(b"X-Sum", b"7"), (b"X-Sum", b"8")]),
    b"HTTP/1.1 204 No Content\r\nDate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.0 200\r\nContent-Length: 2\r\nConnection: keep-alive\r\nDate: x\r\n\r\nok",
]  # fmt: skip


def everything(messages: list[Message]) -> list[tuple[Any, ...]]:
    return [(m.method, m.target, m.status, m.reason, m.fields, m.body, m.trailers, m.framing) for m in messages]


def test_any_segments_give_the_same() -> None:
    """Pipelined requests, and their answers: however TCP cuts them, app and client see the same."""
    sent = b"".join(REQUESTS)
    with running_pair() as (pair, runner):
        whole: dict[bytes, Any] = {}

        def play(answer: bytes, cuts: list[int], answer_cuts: list[int]) -> Any:
            pair.answer, pair.cuts = answer, answer_cuts
            answers = runner.run(pair.talk(sent, cuts, len(REQUESTS)))
            return everything(pair.got), everything(answers)

        @QUICK
        @given(st.sampled_from(ANSWERS), CUTS, CUTS)
        def check(answer: bytes, cuts: list[float], answer_cuts: list[float]) -> None:
            if answer not in whole:
                whole[answer] = play(answer, [], [])
            assume(cuts or answer_cuts)
            assert play(answer, places(sent, cuts), places(answer, answer_cuts)) == whole[answer]

        check()
        assert all(len(got) == len(REQUESTS) for got, _ in whole.values())
        for answer in ANSWERS:  # and every byte alone
            assert play(answer, list(range(1, len(sent))), list(range(1, len(answer)))) == play(answer, [], [])
