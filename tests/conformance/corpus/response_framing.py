"""Responses of a hostile upstream: framing (RFC 9112 §6, §7, §8)."""

from typing import Any

from tests.conformance.case import ResponseCase, broken, good, wrong, wrongs

OK = b"HTTP/1.1 200 OK\r\n"
OLD = b"HTTP/1.0 200 OK\r\n"
CL = OK + b"Content-Length: @\r\n\r\nhello"
TE = OK + b"Transfer-Encoding: @\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
TE_LINE = OK + b"@\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HEAD10 = b"GET / HTTP/1.0\r\nHost: app\r\n\r\n"


def brokens(prefix: str, rfc: str, template: bytes, values: dict[str, bytes], **more: Any) -> list[ResponseCase]:
    return [broken(f"{prefix}: {name}", rfc, template.replace(b"@", value), **more) for name, value in values.items()]


CASES = [
    # ---- fine
    good("content-length", "9112 §6.3", CL.replace(b"@", b"5"), body=b"hello", has=((b"content-length", b"5"),)),
    good("content-length 0", "9112 §6.3", OK + b"Content-Length: 0\r\n\r\n", body=b""),
    good("content-length with leading zeros, written anew", "9110 §8.6", CL.replace(b"@", b"0005"), body=b"hello",
        has=((b"content-length", b"5"),)),
    good("chunked", "9112 §7.1", TE.replace(b"@", b"chunked"), body=b"hello"),
    good("chunked in another case", "9112 §7", TE.replace(b"@", b"Chunked"), body=b"hello"),
    good("chunk extensions are dropped", "9112 §7.1.1", CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n',
        body=b"hello"),
    good("trailers", "9112 §7.1.2", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 7\r\nGrpc-Status: 0\r\n\r\n", body=b"hello",
         trailers=((b"x-sum", b"7"), (b"grpc-status", b"0"))),
    good("trailers that would be believed late are dropped", "9110 §6.5.1",
         CHUNKED + b"5\r\nhello\r\n0\r\nSet-Cookie: evil\r\nConnection: close\r\nLocation: evil\r\nX-Sum: 7\r\n\r\n",
             body=b"hello", trailers=((b"x-sum", b"7"),)),
    good("body up to the close", "9112 §6.3", OK + b"\r\nhello", then="close", body=b"hello", reused=False),
    good("empty body up to the close", "9112 §6.3", OK + b"\r\n", then="close", body=b"", reused=False),
    good("body up to the close, HTTP/1.0", "9112 §6.3", OLD + b"\r\nhello", then="close", body=b"hello", reused=False),
    good("HTTP/1.0 with a length", "9112 §9.3", OLD + b"Content-Length: 5\r\n\r\nhello", body=b"hello", reused=False),
    good("HTTP/1.0 with keep-alive", "9112 §9.3", OLD + b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        body=b"hello", lacks=(b"connection",)),
    good("connection: close", "9112 §9.3", OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", body=b"hello",
        lacks=(b"connection",), reused=False),
    good("a length, and closed behind it", "9112 §9.6", CL.replace(b"@", b"5"), then="close", body=b"hello",
        reused=False),
    good("chunked for an HTTP/1.0 client", "9112 §6.1", TE.replace(b"@", b"chunked"), request=HEAD10, body=b"hello",
        lacks=(b"transfer-encoding",)),
    # ---- no body at all
    good("HEAD with a length", "9110 §9.3.2", OK + b"Content-Length: 1000\r\n\r\n", method=b"HEAD", body=b"",
        has=((b"content-length", b"1000"),)),
    good("HEAD with chunked", "9112 §6.1", OK + b"Transfer-Encoding: chunked\r\n\r\n", method=b"HEAD", body=b""),
    good("HEAD without framing", "9112 §6.3", OK + b"\r\n", method=b"HEAD", body=b"", lacks=(b"content-length",)),
    good("204", "9110 §15.3.5", b"HTTP/1.1 204 No Content\r\n\r\n", 204, body=b"", lacks=(b"content-length",
        b"transfer-encoding")),
    good("204 with content-length 0", "9110 §8.6", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204,
        body=b"", lacks=(b"content-length",),
         note="a MUST NOT that many servers break; dropped"),
    good("304", "9110 §15.4.5", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, body=b"", has=((b"etag", b"x"),)),
    good("304 with the length of the 200", "9110 §8.6", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304,
        body=b"", has=((b"content-length", b"9"),)),
    good("304 with chunked", "9112 §6.1", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304,
        body=b"",
         note="explicitly allowed: it says what the 200 would have had"),
    wrong("204 with a length", "9110 §8.6", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        note="a contradiction; Envoy refuses it, too"),
    wrong("204 with a length and a body", "9110 §8.6", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
    wrong("204 with chunked", "9112 §6.1", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
    wrong("204 with chunked and a body", "9112 §6.1",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    wrong("HEAD with two lengths", "9112 §6.3", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", method=b"HEAD"),
    wrong("304 with two lengths", "9112 §6.3",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    wrong("204 with a length that is none", "9112 §6.3", b"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n"),
    # ---- more than was asked for: the answer stands, the connection does not
    *[ResponseCase(name, "9112 §9.2", sent, given, method, late=late, excess=True, flags="-")
      for name, given, method, sent, late in (
        ("two responses", 200, b"GET", CL.replace(b"@", b"5") * 2, b""),
        ("two responses, chunked", 200, b"GET", TE.replace(b"@", b"chunked") * 2, b""),
        ("a response and a half", 200, b"GET", CL.replace(b"@", b"5") + b"HTTP/1.1 20", b""),
        ("rubbish behind the response", 200, b"GET", CL.replace(b"@", b"5") + b"rubbish", b""),
        ("an empty line behind the response", 200, b"GET", CL.replace(b"@", b"5") + b"\r\n", b""),
        ("body behind a 204", 204, b"GET", b"HTTP/1.1 204 No Content\r\n\r\nhello", b""),
        ("body behind a 304", 304, b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", b""),
        ("body behind a HEAD", 200, b"HEAD", CL.replace(b"@", b"5"), b""),
        ("chunked body behind a HEAD", 200, b"HEAD", TE.replace(b"@", b"chunked"), b""),
        ("a response that nobody asked for, later", 200, b"GET", CL.replace(b"@", b"5"), CL.replace(b"@",
            b"5").replace(b"hello", b"evil!")),
        ("an interim response that nobody asked for, later", 200, b"GET", CL.replace(b"@", b"5"),
            b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("a 408 on the idle connection", 200, b"GET", CL.replace(b"@", b"5"),
            b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
      )],
    # ---- content-length that is none
    *wrongs("content-length", "9112 §6.3", CL, {
        "twice the same": b"5\r\nContent-Length: 5", "twice, different": b"5\r\nContent-Length: 6",
        "list of the same": b"5, 5", "list of others": b"5, 6",
        "plus": b"+5", "minus": b"-5", "hex": b"0x5", "empty": b"", "word": b"five", "blank inside": b"5 5",
        "fraction": b"5.0", "letter behind": b"5a", "quoted": b'"5"',
        "2^64 + 5": b"18446744073709551621", "2^63": b"9223372036854775808", "40 digits": b"9" * 40,
        "full-width digit": b"\xef\xbc\x95", "NUL behind": b"5\x00",
        "vertical tab before": b"\x0b5", "underscore": b"1_0",
    }),
    wrong("content-length and chunked", "9112 §6.3",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    wrong("chunked and content-length", "9112 §6.3",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    # ---- transfer-encoding that is not
    *wrongs("transfer-encoding", "9112 §6.1", TE, {
        "gzip, chunked": b"gzip, chunked", "gzip": b"gzip", "identity": b"identity",
        "chunked, identity": b"chunked, identity", "chunked twice": b"chunked, chunked",
        "xchunked": b"xchunked", "parameter": b"chunked;q=1", "empty": b"", "comma behind": b"chunked,",
        "vertical tab": b"\x0bchunked", "NUL behind": b"chunked\x00",
        "quoted": b'"chunked"', "two words": b"chunked chunked",
    }, then="close"),
    *wrongs("transfer-encoding line", "9112 §5.1", TE_LINE, {
        "space before the colon": b"Transfer-Encoding : chunked", "folded": b"Transfer-Encoding:\r\n chunked",
        "two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "then another": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "bare LF before": b"X: x\nTransfer-Encoding: chunked",
    }, then="close"),
    wrong("transfer-encoding in HTTP/1.0", "9112 §6.1",
        OLD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    # ---- chunks
    *brokens("chunk size", "9112 §7.1", CHUNKED + b"5\r\nhello\r\n@\r\nhello\r\n0\r\n\r\n", {
        "empty": b"", "minus": b"-5", "plus": b"+5", "0x": b"0x5", "rubbish": b"zz", "blank before": b" 5",
        "blank behind": b"5 ", "underscore": b"0_5", "2^64 + 5": b"10000000000000005",
        "2^64 - 1": b"ffffffffffffffff", "40 digits": b"f" * 40, "NUL": b"5\x00", "only an extension": b";a",
        "bare LF in an extension": b"5;a\nb", "bare CR in an extension": b"5;a\rb",
        "NUL in an extension": b"5;a\x00", "extension of 100 KB": b"5;" + b"x" * 100_000,
    }),
    broken("a short extension on each of 1,000 chunks", "9112 §7.1.1",
           CHUNKED + (b"1;" + b"x" * 100 + b"\r\na\r\n") * 1000 + b"0\r\n\r\n"),
    *brokens("line end of a chunk", "9112 §7.1", CHUNKED + b"5\r\nhello\r\n@", {
        "LF behind the size": b"5\nhello\r\n0\r\n\r\n", "CR behind the size": b"5\rhello\r\n0\r\n\r\n",
        "none behind the data": b"5\r\nhello0\r\n\r\n", "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
        "data longer than said": b"5\r\nhello!\r\n0\r\n\r\n", "LF behind 0": b"0\n\r\n", "LF at the end": b"0\r\n\n",
        "CR at the end": b"0\r\n\rX: 1\r\n\r\n", "minus 0": b"-0\r\n\r\n", "a response for a size": OK,
    }),
    *brokens("trailer", "9112 §7.1.2", CHUNKED + b"5\r\nhello\r\n0\r\n@\r\n\r\n", {
        "no colon": b"rubbish", "space before the colon": b"X : 1", "folded": b"X: 1\r\n 2", "bare LF": b"X: 1\nY: 2",
        "bare CR": b"X: 1\rY: 2", "NUL": b"X: \x00", "empty name": b": 1",
        "content-length": b"Content-Length: 5", "transfer-encoding": b"Transfer-Encoding: chunked",
        "100 KB": b"X: " + b"x" * 100_000,
        "200 of them": b"\r\n".join(b"X-%d: 1" % n for n in range(200)),
    }),
    # ---- cut off: the client must see it
    *[broken(f"cut off {name}", "9112 §8", sent, then="close", flags=("UC", "UPE"))
      for name, sent in (
        ("in a content-length body", CL.replace(b"@", b"9")), ("before a content-length body",
            OK + b"Content-Length: 9\r\n\r\n"),
        ("in a chunk", CHUNKED + b"9\r\nhello"), ("in a chunk size", CHUNKED + b"5\r\nhello\r\n5"),
            ("before the last chunk", CHUNKED + b"5\r\nhello\r\n"),
        ("before any chunk", CHUNKED), ("in the last chunk", CHUNKED + b"5\r\nhello\r\n0\r\n"), ("in the trailers",
            CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n"),
        ("inside the last line end", CHUNKED + b"5\r\nhello\r\n0\r\n\r"),
      )],
    broken("reset in a content-length body", "9112 §8", CL.replace(b"@", b"9"), then="reset", flags=("UC", "UPE")),
    broken("reset in a chunked body", "9112 §8", CHUNKED + b"5\r\nhello\r\n", then="reset", flags=("UC", "UPE")),
    broken("reset in a body up to the close", "9112 §8", OK + b"\r\nhello", then="reset", flags=("UC", "UPE"),
        note="a reset is no close: the body is not known to be whole"),
    broken("cut off in a chunk, HTTP/1.0 client", "9112 §8", CHUNKED + b"9\r\nhello", then="close", flags=("UC", "UPE"),
        request=HEAD10,
           note="the client knows a body's end only by the connection's, so that the cut must be a reset"),
]  # fmt: skip
