"""Responses of a hostile upstream: status line, fields, interim responses, endings (RFC 9112 §4, §5; RFC 9110 §15)."""

from typing import Any

from tests.conformance.case import ResponseCase, good, wrong, wrongs

END = b"\r\nContent-Length: 2\r\n\r\nok"
LINE = b"@" + END
OK = b"HTTP/1.1 200 OK"
WHOLE = OK + END
FIELD = OK + b"\r\n@" + END


def status(name: str, line: bytes, code: int = 200, **more: Any) -> ResponseCase:
    return good(f"status line: {name}", "9112 §4", LINE.replace(b"@", line), code, body=b"ok", **more)


def field(name: str, line: bytes, key: bytes, value: bytes, **more: Any) -> ResponseCase:
    return good(f"field: {name}", "9110 §5.5", FIELD.replace(b"@", line), body=b"ok", has=((key, value),), **more)


def section(count: int, size: int) -> bytes:
    return b"\r\n".join(b"X-%d: %b" % (n, b"v" * size) for n in range(count))


def gone(name: str, sent: bytes, then: str, flags: str | tuple[str, ...] = "UC") -> ResponseCase:
    return ResponseCase(name, "9112 §8", sent, (502, 503), then=then, flags=flags)


CASES = [
    status("ordinary", OK),
    status("no reason", b"HTTP/1.1 200 "),
    status("no reason and no blank", b"HTTP/1.1 200", note="the grammar has the blank; every client does without"),
    status("long reason", b"HTTP/1.1 200 " + b"x" * 1000, reason=b"x" * 1000),
    status("obs-text and tab in the reason", b"HTTP/1.1 200 caf\xc3\xa9\tx", reason=b"caf\xc3\xa9\tx"),
    status("unknown code of a class", b"HTTP/1.1 299 Fine By Me", 299, reason=b"Fine By Me"),
    status("599", b"HTTP/1.1 599 Odd", 599),
    status("600", b"HTTP/1.1 600 Odd", 600, note="invalid by RFC 9110 §15, and passed on: clients treat it as a 5xx"),
    status("HTTP/1.0", b"HTTP/1.0 200 OK", reused=False),
    *wrongs("status line", "9112 §4", LINE, {
        "two digits": b"HTTP/1.1 20 OK", "four digits": b"HTTP/1.1 2000 OK", "four digits, no reason": b"HTTP/1.1 2000",
        "letters": b"HTTP/1.1 abc OK", "no code": b"HTTP/1.1 OK", "only the version": b"HTTP/1.1",
        "only the version and a blank": b"HTTP/1.1 ", "minus": b"HTTP/1.1 -200 OK", "plus": b"HTTP/1.1 +20 OK",
        "hex": b"HTTP/1.1 0xC OK", "fraction": b"HTTP/1.1 2.0 OK", "000": b"HTTP/1.1 000 Zero",
        "099": b"HTTP/1.1 099 Low",
        "letter behind": b"HTTP/1.1 200x OK", "colon behind": b"HTTP/1.1 200: OK",
        "full-width digits": b"HTTP/1.1 \xef\xbc\x9200 OK", "two blanks": b"HTTP/1.1  200 OK",
        "tab": b"HTTP/1.1\t200 OK", "blank before": b" HTTP/1.1 200 OK",
        "HTTP/2.0": b"HTTP/2.0 200 OK", "HTTP/2": b"HTTP/2 200", "HTTP/1.2": b"HTTP/1.2 200 OK",
        "HTTP/1.10": b"HTTP/1.10 200 OK", "HTTP/0.9": b"HTTP/0.9 200 OK", "lower case": b"http/1.1 200 OK",
        "ICY": b"ICY 200 OK", "no version": b"200 OK",
        "no dot": b"HTTP/1 200 OK", "letters in the version": b"HTTP/x.y 200 OK", "a request": b"GET / HTTP/1.1",
        "rubbish": b"rubbish", "NUL in the reason": b"HTTP/1.1 200 O\x00K",
        "control in the reason": b"HTTP/1.1 200 O\x01K",
        "DEL in the reason": b"HTTP/1.1 200 O\x7fK", "bare CR in the reason": b"HTTP/1.1 200 O\rK",
        "bare LF behind": b"HTTP/1.1 200 OK\nX: 1", "CR CR LF": b"HTTP/1.1 200 OK\r",
        "empty line before": b"\r\nHTTP/1.1 200 OK",
        "NUL before": b"\x00HTTP/1.1 200 OK", "byte order mark": b"\xef\xbb\xbfHTTP/1.1 200 OK",
        "reason of 100 KB": b"HTTP/1.1 200 " + b"x" * 100_000,
    }),
    wrong("HTTP/0.9 body", "9112 §2.3", b"<html>hello</html>\r\n", then="close"),
    wrong("TLS alert", "8446 §6", b"\x15\x03\x01\x00\x02\x02\x46", then="close"),
    wrong("HTTP/2 settings frame", "9113 §3.4", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
        then="close"),
    # ---- fields
    field("blanks around", b"X: \t1 \t", b"x", b"1"),
    field("empty", b"X:", b"x", b""),
    field("obs-text", b"X: caf\xc3\xa9", b"x", b"caf\xc3\xa9"),
    field("tab inside", b"X: a\tb", b"x", b"a\tb"),
    field("value of 30,000 bytes", b"X: " + b"v" * 30_000, b"x", b"v" * 30_000),
    good("several Set-Cookie stay apart", "9110 §5.3", FIELD.replace(b"@", b"Set-Cookie: a=1, 2\r\nSet-Cookie: b=2"),
        has=((b"set-cookie", b"a=1, 2,b=2"),)),
    good("fields of one hop stay there", "9110 §7.6.1",
         FIELD.replace(b"@",
             b"Connection: x-a, keep-alive\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-B: 2"),
             has=((b"x-b", b"2"),),
         lacks=(b"x-a", b"keep-alive", b"proxy-connection", b"connection")),
    good("Connection cannot take Content-Length", "9110 §7.6.1", FIELD.replace(b"@", b"Connection: content-length"),
        body=b"ok", has=((b"content-length", b"2"),)),
    good("x-pillion-unsent does not pass", "9110 §7.6.1", FIELD.replace(b"@", b"X-Pillion-Unsent: UF"),
        lacks=(b"x-pillion-unsent",)),
    *wrongs("field", "9112 §5", FIELD, {
        "space before the colon": b"X : 1", "tab before the colon": b"X\t: 1", "empty name": b": 1",
        "no colon": b"rubbish", "leading space": b" X: 1", "folded": b"X: 1\r\n 2", "folded with a tab": b"X: 1\r\n\t2",
        "bare CR": b"X: 1\rY: 2",
        "bare LF": b"X: 1\nY: 2", "CR CR LF": b"X: 1\r\r\nY: 2", "space in the name": b"X Y: 1",
        "parenthesis in the name": b"X(: 1", "high byte in the name": b"X\xe9: 1", "NUL in the name": b"X\x00: 1",
        "control in the name": b"X\x01: 1",
        "NUL in the value": b"X: a\x00b", "control in the value": b"X: a\x01b", "DEL in the value": b"X: a\x7fb",
        "vertical tab in the value": b"X: a\x0bb", "a status line for a field": b"HTTP/1.1 200 OK",
    }, note="§5.1 and §5.2 let a proxy repair two of these; here the same strictness holds both ways"),
    wrong("LF ends every line", "9112 §2.2", WHOLE.replace(b"\r\n", b"\n")),
    wrong("LF LF ends the head", "9112 §2.2", OK + b"\r\nContent-Length: 2\n\nok"),
    wrong("CR LF LF ends the head", "9112 §2.2", OK + b"\r\nContent-Length: 2\r\n\nok"),
    good("98 fields", "9110 §5.4", FIELD.replace(b"@", section(97, 1)), has=((b"x-96", b"v"),)),
    wrong("102 fields", "9110 §5.4", FIELD.replace(b"@", section(101, 1))),
    wrong("5,000 fields", "9110 §5.4", FIELD.replace(b"@", section(5000, 1))),
    good("header section of 56 KiB", "9110 §5.4", FIELD.replace(b"@", section(56, 1010)), has=((b"x-55", b"v" * 1010),
        )),
    wrong("header section of 64 KiB", "9110 §5.4", FIELD.replace(b"@", section(64, 1010))),
    wrong("value of 100 KB", "9110 §5.4", FIELD.replace(b"@", b"X: " + b"v" * 100_000)),
    wrong("value without end", "9110 §5.4", OK + b"\r\nX: " + b"v" * 200_000),
    # ---- interim responses: 100 is ours to give, the others are passed on
    good("100, then the response", "9110 §15.2", b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, body=b"ok"),
    good("103, then the response", "9110 §15.2", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + WHOLE, body=b"ok",
        lacks=(b"link",), interim=(103,)),
    good("103 for an HTTP/1.0 client", "9110 §15.2", b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE,
        request=b"GET / HTTP/1.0\r\nHost: app\r\n\r\n", body=b"ok"),
    good("102, 103 and an unknown one", "9110 §15.2",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n" + WHOLE, body=b"ok",
        interim=(102, 103, 199)),
    wrong("101 that nobody asked for", "9110 §15.2.2",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
    wrong("101 without fields", "9110 §15.2.2", b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + WHOLE),
    wrong("a thousand 100s", "9110 §15.2", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + WHOLE),
    wrong("interim response with chunked", "9112 §6.1",
        b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + WHOLE),
    wrong("interim response with a body", "9110 §15.2",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello" + WHOLE),
    wrong("interim response with a bad field", "9112 §5", b"HTTP/1.1 100 Continue\r\nX : 1\r\n\r\n" + WHOLE),
    wrong("fields in interim responses without end", "9110 §5.4", b"HTTP/1.1 100 Continue\r\n" + section(200,
        10) + b"\r\n\r\n" + WHOLE),
    # ---- endings
    gone("closed without a byte", b"", "close"),
    gone("reset without a byte", b"", "reset"),
    gone("closed inside the status line", b"HTTP/1.1 20", "close", ("UC", "UPE")),
    gone("closed inside the fields", OK + b"\r\nContent-Le", "close", ("UC", "UPE")),
    gone("closed before the empty line", OK + b"\r\nContent-Length: 2\r\n", "close", ("UC", "UPE")),
    gone("closed behind an interim response", b"HTTP/1.1 100 Continue\r\n\r\n", "close", ("UC", "UPE")),
    gone("reset inside the fields", OK + b"\r\nContent-Le", "reset", ("UC", "UPE")),
]  # fmt: skip
