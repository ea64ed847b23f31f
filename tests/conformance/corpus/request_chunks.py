"""Requests: the chunked coding and its trailer section (RFC 9112 §7.1)."""

from tests.conformance.case import RequestCase, bad, each, get, ok, post

HEAD = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = HEAD + b"@\r\nhello\r\n0\r\n\r\n"
LAST = HEAD + b"5\r\nhello\r\n@"
TRAILER = HEAD + b"5\r\nhello\r\n0\r\n@\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: app\r\n\r\n"


def size(name: str, line: bytes, note: str = "") -> RequestCase:
    return ok(f"chunk: {name}", "9112 §7.1", FIRST.replace(b"@", line), post(b"hello"), note=note)


CASES = [
    ok("several chunks", "9112 §7.1", HEAD + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", post(b"hello")),
    ok("an empty chunked body", "9112 §7.1", HEAD + b"0\r\n\r\n", post(b"")),
    ok("a body that looks like a last chunk", "9112 §7.1", HEAD + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        post(b"\r\n0\r\n\r\n")),
    ok("a body of all bytes", "9112 §7.1", HEAD + b"100\r\n" + bytes(range(256)) + b"\r\n0\r\n\r\n",
       post(bytes(range(256)))),
    ok("a request right behind the last chunk", "9112 §9.3.2", HEAD + b"5\r\nhello\r\n0\r\n\r\n" + NEXT, post(b"hello"),
       get(b"/next")),
    ok("HEX digits", "9112 §7.1", HEAD + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", post(b"0123456789" * 2)),
    size("leading zeros", b"0005"),
    size("extension", b"5;name=value"),
    size("extension without value", b"5;name"),
    size("two extensions", b"5;a=1;b=2"),
    size("blanks around an extension's parts", b"5 ; a = b",
        "bad white space, which §7.1.1 asks to parse; none is forwarded"),
    size("quoted extension", b'5;a="b"'),
    size("quoted extension with a semicolon", b'5;a="b;c"'),
    size("quoted extension with an escape", b'5;a="b\\"c"'),
    size("extension of 1,000 bytes", b"5;" + b"x" * 1000),
    ok("chunk: extension on the last chunk", "9112 §7.1.1", HEAD + b"5\r\nhello\r\n0;a=b\r\n\r\n", post(b"hello")),
    ok("chunk: many zeros at the end", "9112 §7.1", HEAD + b"5\r\nhello\r\n0000\r\n\r\n", post(b"hello")),
    *each("chunk size", "9112 §7.1", FIRST, {
        "empty": b"", "plus": b"+5", "minus": b"-5", "0x": b"0x5", "0X": b"0X5", "h": b"5h", "g": b"g",
        "blank before": b" 5",
        "tab before": b"\t5", "blank behind": b"5 ", "tab behind": b"5\t", "underscore": b"0_5", "fraction": b"5.0",
        "comma": b"5,", "NUL": b"5\x00", "vertical tab": b"5\x0b", "two numbers": b"5 5", "quoted": b'"5"',
        "only an extension": b";a=b", "equals": b"5=5", "high byte": b"5\xff",
        "full-width digit": b"\xef\xbc\x95",
        "2^64 + 5": b"10000000000000005", "2^64": b"10000000000000000", "2^64 - 1": b"ffffffffffffffff",
        "2^63": b"8000000000000000", "2^32 + 5 with a sign": b"-fffffffb", "40 digits": b"f" * 40,
        "40 zeros and a 5": b"0" * 40 + b"5",
    }, note="where RFC 9112 asks to parse bad white space, we refuse it as llhttp does"),
    *each("chunk extension", "9112 §7.1.1", FIRST, {
        "bare LF inside": b"5;a\nb", "bare CR inside": b"5;a\rb", "NUL inside": b"5;a\x00b",
        "control inside": b"5;a=\x01",
        "DEL inside": b"5;a=\x7f", "LF in quotes": b'5;a="\n"', "CRLF in quotes": b'5;a="\r\n"',
        "open quotes": b'5;a="b',
        "100 KB": b"5;" + b"x" * 100_000, "100 KB in quotes": b'5;a="' + b"x" * 100_000 + b'"',
    }),
    bad("a short extension on each of 1,000 chunks", "9112 §7.1.1",
        HEAD + (b"1;" + b"x" * 100 + b"\r\na\r\n") * 1000 + b"0\r\n\r\n",
        note="100 times more to read than to pass on: §7.1.1 asks for a bound"),
    bad("a chunk size line without end", "9112 §7.1", HEAD + b"5;" + b"x" * 100_000),
    *each("line end of a chunk", "9112 §7.1", HEAD + b"@", {
        "LF behind the size": b"5\nhello\r\n0\r\n\r\n", "CR behind the size": b"5\rhello\r\n0\r\n\r\n",
        "CR CR LF behind the size": b"5\r\r\nhello\r\n0\r\n\r\n", "none behind the data": b"5\r\nhello0\r\n\r\n",
        "LF behind the data": b"5\r\nhello\n0\r\n\r\n", "CR behind the data": b"5\r\nhello\r0\r\n\r\n",
        "data longer than said": b"5\r\nhello!\r\n0\r\n\r\n", "data shorter than said": b"7\r\nhello\r\n0\r\n\r\n",
        "blank behind the data": b"5\r\nhello \r\n0\r\n\r\n", "two behind the data": b"5\r\nhello\r\n\r\n0\r\n\r\n",
    }),
    *each("last chunk", "9112 §7.1", LAST, {
        "LF behind 0": b"0\n\r\n", "LF at the end": b"0\r\n\n", "CR at the end": b"0\r\n\rX: 1\r\n\r\n",
        "minus 0": b"-0\r\n\r\n",
        "0x0": b"0x0\r\n\r\n", "rubbish for a size": b"zz\r\n\r\n", "a request for a size": NEXT,
        "blank line for a size": b"\r\n0\r\n\r\n", "blank behind 0": b"0 \r\n\r\n",
    }),
    ok("trailer", "9112 §7.1.2", TRAILER.replace(b"@", b"X-Sum: 7"), post(b"hello", trailers=((b"x-sum", b"7"),))),
    ok("two trailers, and blanks", "9112 §7.1.2", TRAILER.replace(b"@", b"X-A:\t1 \r\nX-B:"),
       post(b"hello", trailers=((b"x-a", b"1"), (b"x-b", b"")))),
    ok("trailers that would be believed late are dropped", "9110 §6.5.1",
       TRAILER.replace(b"@", b"Host: evil\r\nAuthorization: evil\r\nCookie: evil\r\nConnection: close\r\nTE: gzip\r\n"
                             b"X-Forwarded-For: evil\r\nX-Request-Id: evil\r\nTrailer: x\r\nX-Sum: 7"),
       post(b"hello", trailers=((b"x-sum", b"7"),))),
    *each("trailer", "9112 §7.1.2", TRAILER, {
        "no colon": b"rubbish", "empty name": b": x", "space before the colon": b"X : 1", "folded": b"X: 1\r\n 2",
        "blank first": b" X: 1", "bare LF": b"X: 1\nY: 2", "bare CR": b"X: 1\rY: 2", "NUL": b"X: \x00",
        "control": b"X: \x01",
        "non-token name": b"X(: 1", "high byte in the name": b"X\xff: 1", "content-length": b"Content-Length: 5",
        "transfer-encoding": b"Transfer-Encoding: chunked", "100 KB": b"X: " + b"x" * 100_000,
    },
        note="§6.5.1 would let framing fields be dropped; nobody sends them in good faith, and llhttp and h11 refuse them"),
    bad("too many trailers", "9110 §5.4", TRAILER.replace(b"@", b"\r\n".join(b"X-%d: 1" % n for n in range(200))),
        (400, 431)),
]  # fmt: skip
