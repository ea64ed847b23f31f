"""Requests: request line, version, method, target, and what comes before it (RFC 9112 §2, §3)."""

from tests.conformance.case import Forwarded, RequestCase, bad, each, get, ok

HOST = b" HTTP/1.1\r\nHost: app\r\n\r\n"
LINE = b"@\r\nHost: app\r\n\r\n"
TARGET = b"GET @" + HOST
VERSION = b"GET / @\r\nHost: app\r\n\r\n"
ORDINARY = b"GET /" + HOST


def target(name: str, value: bytes, note: str = "") -> RequestCase:
    return ok(f"target: {name}", "9112 §3.2", TARGET.replace(b"@", value), get(value), note=note)


def method(name: str) -> RequestCase:
    token = name.encode()
    return ok(f"method: {name}", "9110 §9.1", token + b" /" + HOST, Forwarded(token, b"/"),
              note="any token is a method; an unknown one is for the origin to refuse")  # fmt: skip


CASES = [
    ok("an ordinary request", "9112 §3", ORDINARY, get()),
    ok("one empty line before", "9112 §2.2", b"\r\n" + ORDINARY, get()),
    ok("an empty line between requests", "9112 §2.2", ORDINARY + b"\r\n" + ORDINARY, get(), get()),
    bad("100 KB of empty lines before", "9112 §2.2", b"\r\n" * 50_000 + ORDINARY, (400, 431)),
    bad("bare LF before", "9112 §2.2", b"\n" + ORDINARY),
    bad("bare CR before", "9112 §2.2", b"\r" + ORDINARY),
    bad("a line of blanks before", "9112 §2.2", b" \r\n" + ORDINARY),
    *each("request line", "9112 §3", LINE, {
        "blank before": b" GET / HTTP/1.1", "tab before": b"\tGET / HTTP/1.1", "two blanks": b"GET  / HTTP/1.1",
        "two blanks before the version": b"GET /  HTTP/1.1", "tab": b"GET\t/ HTTP/1.1",
        "tab before the version": b"GET /\tHTTP/1.1",
        "blank at the end": b"GET / HTTP/1.1 ", "tab at the end": b"GET / HTTP/1.1\t",
        "form feed": b"GET\x0c/ HTTP/1.1",
        "no target": b"GET HTTP/1.1", "no target, two blanks": b"GET  HTTP/1.1", "no version": b"GET /",
        "no version, a blank": b"GET / ", "only a method": b"GET", "a fourth word": b"GET / HTTP/1.1 x",
        "words in the target": b"GET /a b HTTP/1.1", "a second version": b"GET / HTTP/1.1 HTTP/1.1",
        "a header line": b"Host: app", "rubbish": b"rubbish", "a status line": b"HTTP/1.1 200 OK", "NUL": b"\x00",
        "NUL before": b"\x00GET / HTTP/1.1", "NUL in the version": b"GET / HTTP/1.1\x00",
        "byte order mark": b"\xef\xbb\xbfGET / HTTP/1.1",
        "CR at the end": b"GET / HTTP/1.1\r", "bare CR for a blank": b"GET\r/ HTTP/1.1",
        "version first": b"HTTP/1.1 GET /",
    }),
    bad("HTTP/0.9", "9112 §3", b"GET /\r\n"),
    bad("HTTP/0.9 with a line behind", "9112 §3", b"GET /\r\n\r\n"),
    bad("LF ends the request line", "9112 §2.2", b"GET / HTTP/1.1\nHost: app\r\n\r\n"),
    bad("LF ends every line", "9112 §2.2", b"GET / HTTP/1.1\nHost: app\n\n"),
    *each("version", "9112 §2.3", VERSION, {
        "0.9": b"HTTP/0.9", "1.10": b"HTTP/1.10", "1.2": b"HTTP/1.2", "1.9": b"HTTP/1.9", "2.0": b"HTTP/2.0",
        "2": b"HTTP/2",
        "3.0": b"HTTP/3.0", "lower case": b"http/1.1", "mixed case": b"Http/1.1", "no minor": b"HTTP/1.",
        "no dot": b"HTTP/1",
        "no major": b"HTTP/.1", "01.1": b"HTTP/01.1", "1.01": b"HTTP/1.01", "1,1": b"HTTP/1,1", "no slash": b"HTTP1.1",
        "two slashes": b"HTTP//1.1", "letters": b"HTTP/x.y", "minus": b"HTTP/-1.1", "plus": b"HTTP/+1.1",
        "name": b"ICY/1.1",
        "HTTPS": b"HTTPS/1.1", "letter behind": b"HTTP/1.1x", "1.1.1": b"HTTP/1.1.1", "blank inside": b"HTTP/ 1.1",
        "full-width digit": b"HTTP/1.\xef\xbc\x91", "cut": b"HTT",
    },
        note="a 505 would also do (RFC 9110 §15.6.6); a higher minor version could be served, and is refused as llhttp does"),
    *[method(name) for name in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO", "PROPFIND", "M-SEARCH", "QUERY",
        "get", "Get",
                                "G", "GETT", "VERSION-CONTROL", "!#$%&'*+-.^_`|~09azAZ")],
    ok("HEAD", "9110 §9.3.2", b"HEAD /" + HOST, Forwarded(b"HEAD", b"/"), head=True),
    ok("HEAD with a body", "9110 §9.3.2", b"HEAD / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello",
       Forwarded(b"HEAD", b"/", body=b"hello"), head=True),
    *each("method", "9110 §5.6.2", b"@ /" + HOST, {
        "parenthesis": b"G(T", "comma": b"G,T", "slash": b"G/T", "colon": b"GET:", "at": b"G@T", "quotes": b'"GET"',
        "brace": b"G{T",
        "bracket": b"[GET]", "equals": b"G=T", "semicolon": b"GET;", "less than": b"<GET>", "question mark": b"GET?",
        "backslash": b"G\\T",
        "NUL": b"G\x00T", "control": b"G\x01T", "DEL": b"G\x7fT", "high byte": b"G\xc9T", "empty": b"",
    }),
    bad("method of 100 KB", "9112 §3", b"M" * 100_000 + b" /" + HOST, (400, 414, 431, 501)),
    # ---- targets
    target("query", b"/a?b=c&d=%20"),
    target("empty query", b"/?"),
    target("escaped CRLF stays escaped", b"/%0d%0aX-Evil:%201"),
    target("escaped slash and dots", b"/a%2Fb/%2e%2e/c", "only the listener's path options may change a path"),
    target("dot segments", b"/a/../b/./c"),
    target("several slashes", b"//a///b"),
    target("broken escape", b"/%zz%", "forwarded as it is, as Envoy and llhttp do: no decoder, no ambiguity of ours"),
    target("characters outside of RFC 3986", b'/"<>\\^`{|}', "browsers send them; no delimiter among them"),
    target("a second question mark, colon, at", b"/a:b@c?d?e:f@g"),
    target("of 8,000 bytes", b"/" + b"a" * 7999),
    *each("target", "9112 §3.2", TARGET, {
        "fragment": b"/a#b", "empty fragment": b"/#", "fragment in the query": b"/?a#b", "no slash": b"a",
        "relative": b"a/b",
        "query only": b"?a", "dot": b".", "asterisk on GET": b"*", "asterisk and more": b"*/",
        "authority form on GET": b"app:80",
        "NUL": b"/\x00", "control": b"/\x01", "escape": b"/\x1b", "DEL": b"/\x7f", "UTF-8": b"/caf\xc3\xa9",
        "high byte": b"/\xff",
        "vertical tab": b"/\x0b", "bare CR": b"/\rX", "bare LF": b"/\nX", "bare CR before the version": b"/\r",
        "backslash first": b"\\", "no-break space": b"/\xa0",
    }),
    bad("target of 100 KB", "9112 §3", TARGET.replace(b"@", b"/" + b"a" * 100_000), (414, 431)),
    bad("query of 100 KB", "9112 §3", TARGET.replace(b"@", b"/?" + b"a" * 100_000), (414, 431)),
    # ---- absolute-form, asterisk-form, authority-form
    ok("absolute-form", "9112 §3.2.2", TARGET.replace(b"@", b"http://app/a?b"), get(b"/a?b")),
    ok("absolute-form without a path", "9112 §3.2.2", TARGET.replace(b"@", b"http://app"), get()),
    ok("absolute-form without a path, with a query", "9112 §3.2.2", TARGET.replace(b"@", b"http://app?b"), get(b"/?b")),
    ok("absolute-form in capitals", "9110 §4.2.3", TARGET.replace(b"@", b"HTTP://app/a"), get(b"/a")),
    ok("absolute-form with a port", "9112 §3.2.2", TARGET.replace(b"@", b"http://app:80/a"), get(b"/a", b"app:80")),
    ok("absolute-form wins over host", "9112 §3.2.2",
       b"GET http://other.example:81/a HTTP/1.1\r\nHost: app\r\n\r\n", get(b"/a", b"other.example:81"),
       note="a MUST of the RFC: the received Host is ignored and replaced"),
    ok("a URL in the query", "9112 §3.2.1", TARGET.replace(b"@", b"/?u=http://a@b/"), get(b"/?u=http://a@b/")),
    *each("absolute-form", "9112 §3.2.2", TARGET, {
        "userinfo": b"http://user@app/", "userinfo and password": b"http://user:secret@app/",
        "empty userinfo": b"http://@app/",
        "fragment": b"http://app/#a", "fragment without a path": b"http://app#a", "no host": b"http:///a",
        "no slashes": b"http:a",
        "one slash": b"http:/app/a", "another scheme": b"ftp://app/a", "a file": b"file:///etc/passwd",
        "javascript": b"javascript:1",
        "blank in the host": b"http://a%20b c/", "comma in the host": b"http://a,b/", "bad port": b"http://app:x/",
        "huge port": b"http://app:99999999/", "two ports": b"http://app:1:2/", "empty brackets": b"http://[]/",
        "open bracket": b"http://[::1/", "backslash in the host": b"http://app\\@evil/",
        "non-ASCII host": b"http://caf\xc3\xa9/",
        "host only a port": b"http://:80/", "control in the host": b"http://a\x01b/",
    }),
    bad("absolute-form without host field", "9112 §3.2", b"GET http://app/ HTTP/1.1\r\n\r\n"),
    bad("absolute-form with two hosts", "9112 §3.2", b"GET http://app/ HTTP/1.1\r\nHost: app\r\nHost: app\r\n\r\n"),
    bad("absolute-form with a bad host field", "9112 §3.2", b"GET http://app/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        note="ignored for routing, and yet an invalid field value: §3.2 asks for 400"),
    ok("asterisk-form", "9112 §3.2.4", b"OPTIONS *" + HOST, Forwarded(b"OPTIONS", b"*")),
    RequestCase("CONNECT without a route", "9110 §9.3.6", b"CONNECT app:443 HTTP/1.1\r\nHost: app:443\r\n\r\n", (404,),
        flags=("NR",)),
    RequestCase("CONNECT, then bytes of a tunnel", "9110 §9.3.6",
                b"CONNECT app:443 HTTP/1.1\r\nHost: app:443\r\n\r\n\x16\x03\x01" + ORDINARY, (404,), flags=("NR",)),
    bad("CONNECT with content", "9110 §9.3.6",
        b"CONNECT app:443 HTTP/1.1\r\nHost: app:443\r\nContent-Length: 5\r\n\r\nhello"),
    *each("CONNECT to", "9112 §3.2.3", b"CONNECT @ HTTP/1.1\r\nHost: app\r\n\r\n", {
        "a path": b"/", "userinfo": b"u@app:443", "asterisk": b"*", "two ports": b"app:1:2", "rubbish port": b"app:x",
        "no port": b"app", "no host": b":443", "a URL": b"http://app:443/", "port and path": b"app:443/",
    }),
    # ---- other protocols
    bad("almost an HTTP/2 preface", "9113 §3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", says=b"HTTP/2"),
    bad("TLS hello", "8446 §5.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), says=b"TLS"),
    bad("SSH banner", "9112 §3", b"SSH-2.0-OpenSSH_9.2\r\n"),
    bad("SMTP", "9112 §3", b"EHLO example\r\nMAIL FROM:<a@b>\r\n"),
    # ---- endings
    RequestCase("client says nothing", "9112 §9.6", b"", (), eof=True),
    RequestCase("client leaves inside the head", "9112 §8", b"GET / HTTP/1.1\r\nHost: a", (), eof=True),
    ok("client sends no more behind a whole request", "9112 §9.6", ORDINARY, get(), kept=False, eof=True),
]  # fmt: skip
