"""Every edit that docs/http1.md tells, through a pair of sidecars. That there are no others: test_properties.py."""

from __future__ import annotations

import pytest

from tests.conformance.pair import running_pair
from tests.conformance.wire import Message

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

REQUEST_EDITS: dict[str, tuple[bytes, dict[bytes, bytes | None]]] = {
    "scheme is told": (b"", {b"x-forwarded-proto": b"http"}),
    "a scheme that was told is kept": (b"X-Forwarded-Proto: https", {b"x-forwarded-proto": b"https"}),
    "a request id is kept": (b"X-Request-Id: abc", {b"x-request-id": b"abc"}),
    "traceparent is passed on unread": (b"Traceparent: 00-1-2-3", {b"traceparent": b"00-1-2-3"}),
    "two traceparents are none": (b"Traceparent: a\r\nTraceparent: b", {b"traceparent": None}),
    "a client certificate is not believed": (b"X-Forwarded-Client-Cert: By=x", {b"x-forwarded-client-cert": None}),
    "a sidecar's own word is not believed": (b"X-Pillion-Unsent: UF", {b"x-pillion-unsent": None}),
    "x-forwarded-for is left alone": (b"X-Forwarded-For: 1.2.3.4", {b"x-forwarded-for": b"1.2.3.4"}),
    "Connection and what it names": (b"Connection: x-a\r\nX-A: 1", {b"connection": None, b"x-a": None}),
    "fields of one hop": (
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nProxy-Authenticate: x",
        {b"keep-alive": None, b"proxy-connection": None, b"proxy-authorization": None, b"proxy-authenticate": None},
    ),
    "TE: trailers": (b"TE: gzip, trailers", {b"te": b"trailers", b"connection": b"te"}),
    "TE without trailers": (b"TE: gzip", {b"te": None, b"connection": None}),
    "Upgrade": (b"Connection: upgrade\r\nUpgrade: foo", {b"upgrade": None, b"connection": None}),
    "Expect": (b"Expect: 100-continue", {b"expect": None}),
    "Date and Server stay": (b"Date: d\r\nServer: s", {b"date": b"d", b"server": b"s"}),
    "Trailer stays": (b"Trailer: x-sum", {b"trailer": b"x-sum"}),
}
RESPONSE_EDITS: dict[str, tuple[bytes, dict[bytes, bytes | None]]] = {
    "Server is ours": (b"Server: theirs", {b"server": b"pillion"}),
    "Date is added": (b"", {b"server": b"pillion"}),
    "Date is kept": (b"Date: d", {b"date": b"d"}),
    "Connection and what it names": (b"Connection: x-a\r\nX-A: 1", {b"connection": None, b"x-a": None}),
    "fields of one hop": (b"Keep-Alive: 5\r\nProxy-Authenticate: x", {b"keep-alive": None,
    b"proxy-authenticate": None}),
    "a sidecar's own word is not passed on": (b"X-Pillion-Unsent: UF", {b"x-pillion-unsent": None}),
    "names of requests are ordinary": (
        b"Host: h\r\nExpect: e\r\nTE: t\r\nTraceparent: p\r\nX-Request-Id: i\r\nX-Forwarded-Proto: f",
        {b"host": b"h", b"expect": b"e", b"te": b"t", b"traceparent": b"p", b"x-request-id": b"i",
            b"x-forwarded-proto": b"f"},
    ),
}  # fmt: skip


def check(message: Message, expected: dict[bytes, bytes | None]) -> None:
    assert {name: message.get(name) for name in expected} == expected


def test_requests() -> None:
    with running_pair() as (pair, runner):
        pair.answer = OK
        for sent, expected in REQUEST_EDITS.values():
            line = sent + b"\r\n" if sent else b""
            runner.run(pair.talk(b"GET / HTTP/1.1\r\nHost: app\r\n%b\r\n" % line, []))
            check(pair.got[0], expected)


def test_responses() -> None:
    with running_pair() as (pair, runner):
        for sent, expected in RESPONSE_EDITS.values():
            line = sent + b"\r\n" if sent else b""
            pair.answer = OK[:-2] + line + b"\r\n"
            (answer,) = runner.run(pair.talk(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n", []))
            check(answer, expected)
            assert answer.get(b"date")


@pytest.mark.parametrize(
    ("sent", "target", "host"),
    [
        (b"GET http://app:8080/a?b HTTP/1.1\r\nHost: other\r\n\r\n", b"/a?b", b"app:8080"),
        (b"GET http://app HTTP/1.1\r\nHost: app\r\n\r\n", b"/", b"app"),
        (b"GET /a HTTP/1.1\r\nhOsT: \tApp \r\n\r\n", b"/a", b"App"),
    ],
)
def test_the_request_line(sent: bytes, target: bytes, host: bytes) -> None:
    with running_pair() as (pair, runner):
        pair.answer = OK
        runner.run(pair.talk(sent, []))
        assert (pair.got[0].target, pair.got[0].get(b"host")) == (target, host)
        assert pair.got[0].fields[0][0] == b"host"
