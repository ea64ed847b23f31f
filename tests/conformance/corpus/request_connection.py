"""Requests: Connection and hop-by-hop fields, Expect, Upgrade, TE, persistence, pipelining (RFC 9110 §7, §10; RFC 9112 §9)."""

from tests.conformance.case import Forwarded, RequestCase, bad, get, ok, post

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n"
BAD = b"GET /bad HTTP/1.1\r\nHost: app\r\nHost: evil\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"


def with_field(line: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: app\r\n" + line + b"\r\n\r\n"


HOP = (
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"upgrade",
    b"transfer-encoding",
)

CASES = [
    # ---- fields of one hop
    ok("fields of one hop stay there", "9110 §7.6.1",
       with_field(b"Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nProxy-Authenticate: x\r\nX: 1"),
       get(lacks=HOP, has=((b"x", b"1"),))),
    ok("Connection's own list is removed", "9110 §7.6.1",
        with_field(b"X-A: 1\r\nConnection: x-a, X-B\r\nX-b: 2\r\nX-C: 3"),
       get(lacks=(b"x-a", b"x-b", b"connection"), has=((b"x-c", b"3"),))),
    ok("Connection in two fields", "9110 §7.6.1", with_field(b"Connection: x-a\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2"),
        get(lacks=(b"x-a", b"x-b"))),
    ok("Connection with empty members", "9110 §5.6.1", with_field(b"Connection: , x-a,,\r\nX-A: 1"), get(lacks=(b"x-a",
        b"connection"))),
    ok("Connection, empty", "9110 §7.6.1", with_field(b"Connection:"), get(lacks=(b"connection",))),
    ok("Connection cannot take Host", "9110 §7.6.1", with_field(b"Connection: host"), get()),
    ok("Connection cannot take Content-Length", "9110 §7.6.1", POST + b"Connection: content-length\r\n\r\nhello",
       post(b"hello", has=((b"content-length", b"5"),))),
    ok("Connection cannot take Transfer-Encoding", "9110 §7.6.1",
       b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
       post(b"hello")),
    ok("keep-alive in HTTP/1.1", "9112 §9.3", with_field(b"Connection: keep-alive"), get(lacks=(b"connection",))),
    ok("close", "9112 §9.3", LAST, get(b"/last"), kept=False),
    ok("close in capitals, in a list", "9112 §9.3", with_field(b"Connection: x-a, CLOSE"), get(), kept=False),
    ok("close and keep-alive", "9112 §9.3", with_field(b"Connection: keep-alive, close"), get(), kept=False),
    ok("nothing is read behind close", "9112 §9.6", LAST + GET, get(b"/last"), kept=False),
    ok("HTTP/1.0 closes", "9112 §9.3", b"GET / HTTP/1.0\r\nHost: app\r\n\r\n", get(), kept=False),
    ok("HTTP/1.0 with keep-alive is kept", "9112 §9.3",
        b"GET / HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n", get()),
    ok("HTTP/1.0 with a body", "9112 §6.3", b"POST / HTTP/1.0\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello",
        post(b"hello"), kept=False),
    # ---- TE, Trailer
    ok("TE: trailers is said anew", "9110 §10.1.4", with_field(b"TE: trailers"), get(has=((b"te", b"trailers"),
        (b"connection", b"te")))),
    ok("TE: other codings are not", "9110 §10.1.4", with_field(b"TE: gzip, deflate;q=0.5"), get(lacks=(b"te",
        b"connection"))),
    ok("TE: trailers among others", "9110 §10.1.4", with_field(b"TE: gzip;q=1, trailers\r\nConnection: TE"),
        get(has=((b"te", b"trailers"),))),
    ok("Trailer is passed on", "9110 §6.6.2", with_field(b"Trailer: x-sum"), get(has=((b"trailer", b"x-sum"),))),
    # ---- Upgrade, which no route of the corpus allows
    ok("Upgrade without Connection", "9110 §7.8", with_field(b"Upgrade: websocket"), get(lacks=(b"upgrade",
        b"connection")),
       note="Upgrade must be named in Connection to mean anything"),
    ok("Upgrade to something unknown is ignored", "9110 §7.8", with_field(b"Upgrade: foo/2\r\nConnection: upgrade"),
        get(lacks=(b"upgrade", b"connection"))),
    ok("Upgrade: h2c is ignored", "9113 §3.1",
       with_field(b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings"),
           get(lacks=(b"upgrade", b"http2-settings", b"connection")),
       note="h2c smuggling: neither field may reach the app"),
    ok("a request behind an ignored Upgrade", "9110 §7.8", with_field(b"Upgrade: foo\r\nConnection: upgrade") + GET,
        get(lacks=(b"upgrade",)), get()),
    # ---- Expect
    ok("Expect: 100-continue", "9110 §10.1.1", POST + b"Expect: 100-continue\r\n\r\nhello", post(b"hello",
        lacks=(b"expect",))),
    ok("Expect in capitals", "9110 §10.1.1", POST + b"Expect: 100-CONTINUE\r\n\r\nhello", post(b"hello")),
    ok("Expect without a body", "9110 §10.1.1", with_field(b"Expect: 100-continue"), get(lacks=(b"expect",))),
    ok("Expect in HTTP/1.0 is ignored", "9110 §10.1.1",
        b"POST / HTTP/1.0\r\nHost: app\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
       post(b"hello", lacks=(b"expect",)), kept=False),
    bad("Expect: something else", "9110 §10.1.1", with_field(b"Expect: 200-ok"), 417,
        note="the status that the RFC has for it"),
    bad("Expect: 100-continue and something else", "9110 §10.1.1", POST + b"Expect: 100-continue, x=y\r\n\r\nhello",
        417),
    # ---- pipelining: what is good is answered first, what is bad ends the connection
    ok("pipelined", "9112 §9.3.2", GET + GET.replace(b"/ ", b"/2 ") + GET.replace(b"/ ", b"/3 "), get(), get(b"/2"),
        get(b"/3")),
    ok("pipelined behind a body", "9112 §9.3.2", POST + b"\r\nhello" + GET, post(b"hello"), get()),
    ok("pipelined, 50 of them", "9112 §9.3.2", GET * 50, *[get()] * 50),
    RequestCase("good, then bad", "9112 §9.3.2", GET + BAD, (200, 400), False, (get(),)),
    RequestCase("good, bad, good", "9112 §9.3.2", GET + BAD + GET, (200, 400), False, (get(),)),
    RequestCase("five good, then bad", "9112 §9.3.2", GET * 5 + BAD, (200,) * 5 + (400,), False, (get(),) * 5),
    RequestCase("a body, then bad", "9112 §9.3.2", POST + b"\r\nhello" + BAD, (200, 400), False, (post(b"hello"),)),
    RequestCase("bad, then good", "9112 §9.3.2", BAD + GET, (400,)),
    RequestCase("good, then rubbish", "9112 §9.3.2", GET + b"\x00\x01\x02\r\n\r\n", (200, 400), False, (get(),)),
    RequestCase(
        "one byte too many joins the next method", "9112 §6.3", POST + b"\r\nhello!" + GET, (200, 200), True,
        (post(b"hello"), Forwarded(b"!GET", b"/")),
            note="! is a token character: !GET is a method, for the app to refuse"),
    RequestCase("a body one byte short takes the next request's first", "9112 §6.3", POST.replace(b"5",
        b"6") + b"\r\nhello" + GET, (200, 200), True,
                (post(b"helloG"), Forwarded(b"ET", b"/"))),
    RequestCase("good, then an ambiguous one", "9112 §6.3",
                GET + b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
                    (200, 400), False, (get(),)),
    RequestCase("good, then HTTP/1.0, then another", "9112 §9.3", GET + b"GET /old HTTP/1.0\r\n\r\n" + GET, (200, 200),
        False,
                (get(), Forwarded(b"GET", b"/old", b""))),
    RequestCase("chunked, bad last chunk, then a request", "9112 §7.1",
                b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nX\r\n\r\n" + SMUGGLED,
                (400,)),
    # ---- injection: what is escaped stays escaped, what is written is a line of its own
    ok("CRLF in a query stays escaped", "9112 §11.1", b"GET /?a=%0d%0aX-Evil:%201%0d%0a HTTP/1.1\r\nHost: app\r\n\r\n",
       get(b"/?a=%0d%0aX-Evil:%201%0d%0a", lacks=(b"x-evil",))),
    bad("CR in a value", "9112 §2.2", with_field(b"X: a\r\rHost: evil")),
    bad("LF and a field in a value", "9112 §2.2", with_field(b"X: a\nX-Evil: 1")),
    bad("NUL hides the rest of a value", "9110 §5.5", with_field(b"X: a\x00\r\nX-Evil: 1")),
    bad("request line then rubbish", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: app\r\nrubbish\r\n\r\n"),
    bad("request line then a request", "9112 §2.2", b"GET / HTTP/1.1\r\n" + GET),
    bad("a body where a field should be", "9112 §2.2", b"POST / HTTP/1.1\r\nHost: app\r\n{}\r\n\r\n"),
    # ---- what we add cannot be forged
    ok("x-pillion-unsent does not pass", "9110 §7.6.1", with_field(b"X-Pillion-Unsent: UF"),
        get(lacks=(b"x-pillion-unsent",))),
    ok("x-forwarded-client-cert does not pass", "9110 §7.6.1", with_field(b"X-Forwarded-Client-Cert: By=x"),
        get(lacks=(b"x-forwarded-client-cert",))),
]  # fmt: skip
