"""Requests: content-length, transfer-encoding, and both (RFC 9112 §6)."""

from tests.conformance.case import RequestCase, bad, each, get, ok, post

POST = b"POST / HTTP/1.1\r\nHost: app\r\n"
CL = POST + b"Content-Length: @\r\n\r\nhello"
TE = POST + b"Transfer-Encoding: @\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
TE_LINE = POST + b"@\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"

CASES = [
    # ---- content-length that is fine
    ok("content-length", "9110 §8.6", CL.replace(b"@", b"5"), post(b"hello", has=((b"content-length", b"5"),))),
    ok("content-length: tab before, blanks after", "9112 §5", CL.replace(b" @", b"\t5 \t "), post(b"hello")),
    ok("content-length: leading zeros, written anew", "9110 §8.6", CL.replace(b"@", b"0005"),
       post(b"hello", has=((b"content-length", b"5"),))),
    ok("content-length: 0 on POST is announced", "9110 §8.6", POST + b"Content-Length: 0\r\n\r\n",
       post(b"", has=((b"content-length", b"0"),))),
    ok("content-length: any case of the name", "9110 §5.1", POST + b"cOnTeNt-LeNgTh: 5\r\n\r\nhello", post(b"hello")),
    ok("no framing field means no body", "9112 §6.3", POST + b"\r\n" + SMUGGLED, post(b""), get(b"/smuggled")),
    ok("GET with a body", "9110 §9.3.1", b"GET / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello",
       get(body=b"hello", has=((b"content-length", b"5"),))),
    ok("GET whose body looks like a request", "9112 §6.3",
       b"GET / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, get(body=SMUGGLED),
       note="the 0.CL classic: the length is believed on any method, so nothing is left over"),
    # ---- content-length that is none
    *each("content-length", "9110 §8.6", CL, {
        "plus": b"+5", "minus": b"-5", "hex": b"0x5", "hex digits": b"a", "fraction": b"5.0", "trailing letter": b"5a",
        "word": b"five", "empty": b"", "only blanks": b"   ", "blank inside": b"5 5", "tab inside": b"5\t5",
        "quoted": b'"5"', "underscore": b"1_0", "semicolon": b"5;", "full-width digit": b"\xef\xbc\x95",
        "superscript": b"\xb2", "exponent": b"5e0", "list of the same": b"5, 5", "list of others": b"5, 6",
        "list without blank": b"5,5", "empty list member": b"5,", "NUL behind": b"5\x00",
        "vertical tab before": b"\x0b5",
        "form feed behind": b"5\x0c", "no-break space behind": b"5\xa0",
        "2^63": b"9223372036854775808", "2^64 + 5": b"18446744073709551621", "40 digits": b"9" * 40,
        "100 digits": b"0" * 99 + b"5",
    }),
    bad("two content-lengths, the same", "9112 §6.3", CL.replace(b"@", b"5\r\nContent-Length: 5")),
    bad("two content-lengths, different", "9112 §6.3", CL.replace(b"@", b"5\r\nContent-Length: 6")),
    bad("two content-lengths, 0 first", "9112 §6.3",
        POST + b"Content-Length: 0\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED),
    bad("space before the colon of content-length", "9112 §5.1", POST + b"Content-Length : 5\r\n\r\nhello"),
    bad("content-length folded", "9112 §5.2", POST + b"Content-Length:\r\n 5\r\n\r\nhello"),
    # ---- both
    bad("content-length and transfer-encoding", "9112 §6.3",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        note="§6.1 lets a server process it by the coding; here ambiguity is refused"),
    bad("transfer-encoding and content-length", "9112 §6.3",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    bad("CL.TE smuggling", "9112 §11.2",
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + SMUGGLED),
    bad("TE.CL smuggling", "9112 §11.2",
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"),
    bad("content-length with a coding that is no chunked", "9112 §6.3",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello"),
    bad("content-length with an empty transfer-encoding", "9112 §6.3",
        POST + b"Content-Length: 5\r\nTransfer-Encoding:\r\n\r\nhello"),
    # ---- transfer-encoding that is fine
    ok("chunked", "9112 §7.1", TE.replace(b"@", b"chunked"), post(b"hello", has=((b"transfer-encoding", b"chunked"),))),
    ok("chunked in another case", "9112 §7", TE.replace(b"@", b"ChunKED"), post(b"hello")),
    ok("chunked behind a tab", "9112 §5", TE_LINE.replace(b"@", b"Transfer-Encoding:\tchunked\t"), post(b"hello")),
    ok("a field that only looks like it", "9110 §5.1",
       POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
       post(b"hello", has=((b"transfer_encoding", b"chunked"), (b"content-length", b"5"))),
       note="an underscore makes another name; forwarded as it is, as Envoy's default does"),
    # ---- transfer-encoding that is not
    *each("transfer-encoding", "9112 §6.1", TE, {
        "gzip, chunked": b"gzip, chunked", "gzip": b"gzip", "chunked, gzip": b"chunked, gzip", "identity": b"identity",
        "chunked, identity": b"chunked, identity", "identity, chunked": b"identity, chunked",
        "chunked twice in a list": b"chunked, chunked", "xchunked": b"xchunked", "chunkedx": b"chunkedx",
        "chunk": b"chunk", "parameter": b"chunked;q=1", "empty parameter": b"chunked;", "quoted": b'"chunked"',
        "single quotes": b"'chunked'", "empty": b"", "comma before": b", chunked", "comma behind": b"chunked,",
        "vertical tab": b"\x0bchunked", "form feed": b"\x0cchunked", "NUL behind": b"chunked\x00",
        "control inside": b"chu\x01nked", "no-break space": b"\xa0chunked", "two words": b"chunked chunked",
        "cow": b"cow", "backslash": b"chunked\\", "non-ascii k": b"chun\xe2\x84\xaaed",
    }),
    *each("transfer-encoding line", "9112 §5.1", TE_LINE, {
        "space before the colon": b"Transfer-Encoding : chunked",
        "tab before the colon": b"Transfer-Encoding\t: chunked",
        "space before the name": b" Transfer-Encoding: chunked", "folded": b"Transfer-Encoding:\r\n chunked",
        "folded name": b"Transfer-Encoding\r\n : chunked", "bare LF before": b"X: x\nTransfer-Encoding: chunked",
        "bare CR before": b"X: x\rTransfer-Encoding: chunked", "bare LF behind": b"Transfer-Encoding: chunked\nX: x",
        "NUL in the name": b"Transfer\x00-Encoding: chunked", "high byte before": b"\xffTransfer-Encoding: chunked",
        "two colons": b"Transfer-Encoding:: chunked", "no colon": b"Transfer-Encoding chunked",
        "chunked in two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "then another": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "another, then": b"Transfer-Encoding: cow\r\ntransfer-encoding: chunked",
        "then an empty one": b"Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    }),
    bad("transfer-encoding in HTTP/1.0", "9112 §6.1",
        b"POST / HTTP/1.0\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    bad("transfer-encoding on GET, not chunked", "9112 §6.1",
        b"GET / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: gzip\r\n\r\n"),
    # ---- bodies that end early
    RequestCase("client leaves inside a content-length body", "9112 §8", CL.replace(b"@", b"9"), (), eof=True,
                records=1, flags=("DC",)),
    RequestCase("client leaves inside a chunk", "9112 §8", POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello", (),
                eof=True, records=1, flags=("DC",)),
    RequestCase("client leaves before the last chunk", "9112 §8",
                POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", (), eof=True, records=1, flags=("DC",)),
    RequestCase("client leaves inside the trailer section", "9112 §8",
                POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n", (), eof=True, records=1,
                flags=("DC",)),
]  # fmt: skip
