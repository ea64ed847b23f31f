"""Requests: header fields, Host, and limits (RFC 9112 §3.2, §5; RFC 9110 §5)."""

from tests.conformance.case import Forwarded, RequestCase, bad, each, get, ok

FIELD = b"GET / HTTP/1.1\r\nHost: app\r\n@\r\n\r\n"
ONLY_HOST = b"GET / HTTP/1.1\r\nHost: @\r\n\r\n"
HOSTS = b"GET / HTTP/1.1\r\n@\r\n\r\n"


def field(name: str, line: bytes, key: bytes, value: bytes, note: str = "") -> RequestCase:
    return ok(f"field: {name}", "9110 §5.5", FIELD.replace(b"@", line), get(has=((key, value),)), note=note)


def host(name: str, value: bytes, note: str = "") -> RequestCase:
    return ok(f"host: {name}", "9112 §3.2", ONLY_HOST.replace(b"@", value), get(host=value), note=note)


def many(count: int) -> bytes:
    """A request with so many fields, Host among them."""
    return b"GET / HTTP/1.1\r\nHost: app\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(count - 1)) + b"\r\n"


def section(size: int) -> bytes:
    """A request whose header section has about so many bytes, in 60 fields."""
    return (
        b"GET / HTTP/1.1\r\nHost: app\r\n"
        + b"".join(b"X-%d: %b\r\n" % (n, b"v" * (size // 60 - 8)) for n in range(60))
        + b"\r\n"
    )


CASES = [
    # ---- fields that are fine
    field("no blank", b"X:1", b"x", b"1"),
    field("blanks and tabs around", b"X: \t 1 \t ", b"x", b"1"),
    field("empty value", b"X:", b"x", b""),
    field("only blanks", b"X:  \t", b"x", b""),
    field("tab inside", b"X: a\tb", b"x", b"a\tb"),
    field("obs-text", b"X: caf\xc3\xa9 \xff", b"x", b"caf\xc3\xa9 \xff"),
    field("colons in the value", b"X: a:b: c", b"x", b"a:b: c"),
    field("every token character", b"!#$%&'*+-.^_`|~09: 1", b"!#$%&'*+-.^_`|~09", b"1"),
    field("a name of one digit", b"1: 2", b"1", b"2"),
    field("quotes and backslashes", b'X: "a\\"b', b"x", b'"a\\"b'),
    field("value of 30,000 bytes", b"X: " + b"v" * 30_000, b"x", b"v" * 30_000),
    field("name of 1,000 bytes", b"x" * 1000 + b": 1", b"x" * 1000, b"1"),
    ok("several fields of a name keep their order", "9110 §5.3", FIELD.replace(b"@", b"X: 1\r\nY: 2\r\nx: 3"),
        get(has=((b"x", b"1,3"),))),
    # ---- fields that are not
    *each("field", "9112 §5", FIELD, {
        "space before the colon": b"X : 1", "tab before the colon": b"X\t: 1", "empty name": b": 1",
        "only a colon": b":",
        "no colon": b"rubbish", "no colon, two words": b"rub bish", "leading space": b" X: 1",
        "folded with a blank": b"X: 1\r\n 2",
        "folded with a tab": b"X: 1\r\n\t2", "folded, empty": b"X: 1\r\n \r\nY: 2", "bare CR": b"X: 1\rY: 2",
        "bare LF": b"X: 1\nY: 2",
        "CR CR LF": b"X: 1\r\r\nY: 2", "LF CR": b"X: 1\n\rY: 2", "bare CR first": b"\rX: 1", "bare LF first": b"\nX: 1",
        "bare CR as name end": b"X\r: 1",
        "space in the name": b"X Y: 1", "parenthesis": b"X(: 1", "comma": b"X,: 1", "slash": b"X/: 1",
        "semicolon": b"X;: 1",
        "at": b"X@: 1", "brackets": b"[X]: 1", "braces": b"{X}: 1", "quotes": b'"X": 1',
        "backslash": b"X\\: 1", "equals": b"X=: 1",
        "question mark": b"X?: 1", "less than": b"<X>: 1", "high byte in the name": b"X\xe9: 1",
        "UTF-8 in the name": b"caf\xc3\xa9: 1",
        "NUL in the name": b"X\x00: 1", "control in the name": b"X\x01: 1", "DEL in the name": b"X\x7f: 1",
        "ESC in the name": b"\x1bX: 1",
        "vertical tab before the colon": b"X\x0b: 1", "request line for a field": b"GET /smuggled HTTP/1.1",
    }),
    *each("value", "9110 §5.5", FIELD, {
        "NUL": b"X: a\x00b", "NUL first": b"X: \x00", "NUL last": b"X: a\x00", "SOH": b"X: \x01",
        "backspace": b"X: a\x08b",
        "vertical tab": b"X: a\x0bb", "form feed": b"X: \x0ca", "SO": b"X: \x0e", "ESC": b"X: \x1b[0m",
        "US": b"X: \x1f", "DEL": b"X: a\x7fb",
    }, note="§5.5 leaves the other controls to the recipient; refused, as llhttp does"),
    bad("leading space before the first field", "9112 §2.2", b"GET / HTTP/1.1\r\n Host: app\r\n\r\n"),
    bad("leading tab before the first field", "9112 §2.2", b"GET / HTTP/1.1\r\n\tX: 1\r\nHost: app\r\n\r\n"),
    bad("a line of blanks before the first field", "9112 §2.2", b"GET / HTTP/1.1\r\n \r\nHost: app\r\n\r\n"),
    bad("LF LF ends the head", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: app\n\n"),
    bad("CR LF LF ends the head", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: app\r\n\n"),
    bad("LF CR LF ends the head", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: app\n\r\n"),
    bad("CR CR ends the head", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: app\r\rX: 1\r\n\r\n"),
    bad("CR LF CR and another byte", "9112 §2.2", b"GET / HTTP/1.1\r\nHost: app\r\n\rX: 1\r\n\r\n"),
    # ---- host
    host("name", b"app.default.svc.cluster.local"), host("port", b"app:8080"), host("empty port", b"app:"),
        host("address", b"127.0.0.1:80"),
    host("IPv6", b"[::1]"), host("IPv6 and port", b"[2001:db8::1]:80"), host("capitals", b"APP.Example"),
        host("underscore", b"a_b"),
    host("trailing dot", b"app."), host("escape", b"a%41"), host("sub-delims", b"a!$&'()*+;=~b",
        "RFC 3986 reg-name, without the comma, which would make a list of it"),
    host("255 bytes", b"a" * 255), host("empty", b"",
        "§3.2: sent when the target has no authority, as for an HTTP/1.0 request without Host that is passed on"),
    *each("host", "9112 §3.2", ONLY_HOST, {
        "userinfo": b"u@app", "userinfo and password": b"u:p@app", "path": b"app/x",
        "only a slash": b"app/", "query": b"app?x", "fragment": b"app#x",
        "comma": b"a,b", "blank": b"a b", "tab": b"a\tb", "backslash": b"a\\b", "quotes": b'"app"',
        "brackets missing": b"::1", "less than": b"<app>", "braces": b"{app}",
        "pipe": b"a|b", "caret": b"a^b", "backtick": b"a`b", "non-ASCII": b"caf\xc3\xa9", "high byte": b"a\xff",
        "broken escape": b"a%4", "broken escape 2": b"a%zz",
        "word for a port": b"app:http", "minus port": b"app:-1", "plus port": b"app:+80", "hex port": b"app:0x50",
        "8 digit port": b"app:99999999", "two ports": b"app:1:2",
        "letter in the port": b"app:80x", "blank before the port": b"app: 80", "only a port": b":80",
        "empty brackets": b"[]", "open bracket": b"[::1", "closing bracket": b"::1]",
        "bracket in the middle": b"a[::1]",
        "word behind the brackets": b"[::1]x", "name in brackets": b"[app]", "nested brackets": b"[[::1]]",
        "zone": b"[fe80::1%25eth0]", "a URL": b"http://app",
        "control": b"a\x01b", "NUL": b"a\x00b", "DEL": b"a\x7fb", "folded": b"app\r\n x",
    }),
    *each("host line", "9112 §3.2", HOSTS, {
        "missing": b"X: 1", "two, the same": b"Host: app\r\nHost: app", "two, different": b"Host: app\r\nHost: evil",
        "two, another case": b"Host: app\r\nhOST: app",
        "two, one empty": b"Host: app\r\nHost:", "two, apart": b"Host: app\r\nX: 1\r\nHost: evil",
        "space before the colon": b"Host : app", "leading space": b" Host: app",
        "two, one folded away": b"X: 1\r\n Host: evil\r\nHost: app",
    }),
    bad("no field at all", "9112 §3.2", b"GET / HTTP/1.1\r\n\r\n"),
    ok("HTTP/1.0 without host", "9112 §3.2", b"GET / HTTP/1.0\r\n\r\n", get(host=b""), kept=False,
       note="Envoy refuses HTTP/1.0 unless told otherwise; health checks and old tools still send it"),
    bad("HTTP/1.0 with two hosts", "9112 §3.2", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    bad("HTTP/1.0 with a bad host", "9112 §3.2", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
    # ---- limits: 100 fields, 60 KiB (HttpConnectionManager's defaults)
    ok("90 fields", "6585 §5", many(90), get(has=((b"x-88", b"1"),))),
    ok("100 fields", "6585 §5", many(100), get(has=((b"x-98", b"1"),))),
    bad("102 fields", "6585 §5", many(102), 431),
    bad("5,000 fields", "6585 §5", many(5000), 431),
    bad("fields without end", "6585 §5", many(10_000)[:-2] + b"X-Y: ", 431),
    ok("header section of 56 KiB", "6585 §5", section(56 * 1024), get(has=((b"x-59", b"v" * (56 * 1024 // 60 - 8)),))),
    bad("header section of 62 KiB", "6585 §5", section(62 * 1024), 431),
    bad("header section of 2 MiB", "6585 §5", section(2 << 20), 431),
    bad("value of 100 KB", "6585 §5", FIELD.replace(b"@", b"X: " + b"v" * 100_000), 431),
    bad("value without end", "6585 §5", b"GET / HTTP/1.1\r\nHost: app\r\nX: " + b"v" * 100_000, 431),
    bad("name of 100 KB", "6585 §5", FIELD.replace(b"@", b"x" * 100_000 + b": 1"), (400, 431)),
    bad("host of 100 KB", "6585 §5", ONLY_HOST.replace(b"@", b"a" * 100_000), 431),
    RequestCase("underscores in a name", "9110 §5.1", FIELD.replace(b"@", b"X_Y: 1"), (200,), True,
                (Forwarded(b"GET", b"/", has=((b"x_y", b"1"),)),)),
]  # fmt: skip
