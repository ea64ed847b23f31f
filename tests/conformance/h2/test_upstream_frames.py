"""RFC 9113 towards upstreams: what the sidecar as a client makes of a server that breaks a rule, and what is left of it.

Each case is what such a server says behind a GET on stream 1; `want` is what it gets for that, `client` what the
sidecar's own client sees.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.case import outcome
from tests.conformance.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    continuation,
    data,
    frame,
    headers,
    ping,
    priority,
    request,
    response,
    rst_stream,
    settings,
    window_update,
)
from tests.conformance.h2.peer import Peer, Silence
from tests.conformance.h2.stage import ENVOY_JUDGES, Play

OK = response()
HEAD = headers(1, OK, END_HEADERS)
WHOLE = headers(1, OK)
FAILED = "502 | 503"
CUT = "RST_STREAM INTERNAL_ERROR | RST_STREAM PROTOCOL_ERROR"
"""Behind a head that the client has already. Where head and fault come together, it may also get an error's status."""
EITHER = f"{FAILED} | {CUT}"


@dataclass(frozen=True, slots=True)
class Bad:
    """`want`: as in Case, of the server's connection; "lives": nothing. `client`: as in Case, of the client's stream."""

    name: str
    sent: bytes
    want: str
    client: str = FAILED

    def __str__(self) -> str:
        return self.name.replace(" ", "_").replace("/", "_").replace("[", "(").replace("]", ")")


GOOD = [
    Bad("8.1 a head and nothing else", WHOLE, "lives", "200"),
    Bad("4.1 unknown frames, flags and reserved bits", frame(0x42, 9, 1, b"x") + frame(HEADERS, 0xD5 & ~0x28, 1 << 31 | 1, OK), "lives", "200"),
    Bad("5.3 priority and padding", priority(1, 3) + headers(1, OK, 4, pad=20, priority=b"\0\0\0\0\1") + data(1, b"fine", 1, pad=9), "lives", "200"),
    Bad("6.2 a head in CONTINUATION", headers(1, OK[:3], 0) + continuation(1, OK[3:7], 0) + continuation(1, OK[7:]) + data(1, b"fine", 1), "lives", "200"),
    Bad("6.5 SETTINGS and PING between", HEAD + settings((0x99, 1)) + ping() + data(1, b"fine", 1), "lives", "200"),
    Bad("6.5.2 every setting", settings((1, 4096), (2, 0), (3, 7), (4, 70_000), (5, 20_000), (6, 1 << 20)) + WHOLE, "lives", "200"),
    Bad("6.9.1 DATA in frames of nothing", HEAD + data(1) + data(1, b"fine") + data(1, b"", 1), "lives", "200"),
    Bad("8.1 informational responses", headers(1, response(b"100"), 4) + headers(1, response(b"103", (b"link", b"</x>")), 4) + WHOLE, "lives", "200"),
    Bad("8.1 trailers", HEAD + data(1, b"fine") + headers(1, block((b"grpc-status", b"0"))), "lives", "200"),
    Bad("8.1.1 content-length that is right", headers(1, response(b"200", (b"content-length", b"4")), 4) + data(1, b"fine", 1), "lives", "200"),
    Bad("8.1.1 a 204", headers(1, response(b"204")), "lives", "204"),
    Bad("8.1.1 a 304 with content-length", headers(1, response(b"304", (b"content-length", b"10"))), "lives", "304"),
]  # fmt: skip

CONNECTION = [
    Bad("4.2 DATA over MAX_FRAME_SIZE", HEAD + data(1, b"x" * (LARGEST + 1)), "GOAWAY FRAME_SIZE_ERROR | RST_STREAM FRAME_SIZE_ERROR", EITHER),
    Bad("4.2 HEADERS over MAX_FRAME_SIZE", headers(1, OK + b"\0" * (LARGEST + 1)), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("4.3 a block that cannot be decoded", headers(1, b"\xbe"), "GOAWAY COMPRESSION_ERROR"),
    Bad("4.3 a frame inside a block", headers(1, OK, END_STREAM) + ping(), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 HEADERS on a stream that nobody opened", headers(3, OK), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 HEADERS on an even stream", headers(2, OK), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 HEADERS on stream 0", headers(0, OK), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 DATA on a stream that nobody opened", data(3, b"x"), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 RST_STREAM on a stream that nobody opened", rst_stream(3), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 WINDOW_UPDATE on a stream that nobody opened", window_update(3, 1), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 CONTINUATION on a stream that nobody opened", continuation(3, OK), "GOAWAY PROTOCOL_ERROR"),
    Bad("5.1 DATA behind the end", WHOLE + data(1, b"x"), "GOAWAY STREAM_CLOSED | RST_STREAM STREAM_CLOSED", "200"),
    Bad("5.1 HEADERS behind the end", WHOLE + headers(1, OK), "GOAWAY STREAM_CLOSED | RST_STREAM STREAM_CLOSED", "200"),
    Bad("6.1 DATA on stream 0", data(0, b"x"), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.1 padding longer than the payload", HEAD + frame(DATA, PADDED, 1, b"\xffx"), "GOAWAY PROTOCOL_ERROR", EITHER),
    Bad("6.3 PRIORITY on stream 0", priority(0), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.3 PRIORITY of four octets", frame(PRIORITY, 0, 1, b"\0" * 4), "RST_STREAM FRAME_SIZE_ERROR | GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.4 RST_STREAM on stream 0", rst_stream(0), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.4 RST_STREAM of three octets", frame(RST_STREAM, 0, 1, b"\0" * 3), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.5 SETTINGS of five octets", frame(SETTINGS, 0, 0, b"\0" * 5), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.5 an acknowledgement with a payload", frame(SETTINGS, ACK, 0, b"\0" * 6), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.5.2 a server that enables push", settings((ENABLE_PUSH, 1)), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.5.2 INITIAL_WINDOW_SIZE 2^31", settings((INITIAL_WINDOW_SIZE, 2**31)), "GOAWAY FLOW_CONTROL_ERROR"),
    Bad("6.5.2 MAX_FRAME_SIZE 0", settings((MAX_FRAME_SIZE, 0)), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.5.2 MAX_FRAME_SIZE 2^24", settings((MAX_FRAME_SIZE, 2**24)), "GOAWAY PROTOCOL_ERROR"),
    Bad("8441-3 ENABLE_CONNECT_PROTOCOL withdrawn", settings((ENABLE_CONNECT_PROTOCOL, 1)) + settings((ENABLE_CONNECT_PROTOCOL, 0)), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.6 PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + request()), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.7 PING on a stream", frame(PING, 0, 1, b"8 octets"), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.7 PING of six octets", frame(PING, 0, 0, b"6octet"), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.8 GOAWAY of four octets", frame(GOAWAY, 0, 0, b"\0" * 4), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.9 WINDOW_UPDATE of 0 for the connection", window_update(0, 0), "GOAWAY PROTOCOL_ERROR"),
    Bad("6.9 WINDOW_UPDATE of six octets", frame(WINDOW_UPDATE, 0, 0, b"\0" * 6), "GOAWAY FRAME_SIZE_ERROR"),
    Bad("6.9.1 the connection's window above 2^31-1", window_update(0, MAX_WINDOW), "GOAWAY FLOW_CONTROL_ERROR"),
    Bad("6.10 CONTINUATION behind nothing", HEAD + continuation(1, b""), "GOAWAY PROTOCOL_ERROR", EITHER),
    Bad("6.10 CONTINUATION of another stream", headers(1, OK, END_STREAM) + frame(CONTINUATION, 4, 3, b""), "GOAWAY PROTOCOL_ERROR"),
]  # fmt: skip

BROKEN = "RST_STREAM PROTOCOL_ERROR"
STREAM = [
    Bad("6.1 DATA before HEADERS", data(1, b"x", END_STREAM), BROKEN),
    Bad("6.9 WINDOW_UPDATE of 0 for the stream", HEAD + window_update(1, 0), "RST_STREAM PROTOCOL_ERROR | GOAWAY PROTOCOL_ERROR", EITHER),
    Bad("8.1 a response of trailers only without :status", headers(1, block((b"grpc-status", b"0"))), BROKEN),
    Bad("8.1 an empty head", headers(1, b""), BROKEN),
    Bad("8.1 a 100 that ends the stream", headers(1, response(b"100")), BROKEN),
    Bad("8.1 a 103 that ends the stream", headers(1, response(b"103")), BROKEN),
    Bad("8.1 a 101", headers(1, response(b"101"), END_HEADERS), BROKEN),
    Bad("8.1 an informational response with content-length", headers(1, response(b"103", (b"content-length", b"3")), 4) + WHOLE, "RST_STREAM PROTOCOL_ERROR", FAILED),
    Bad("8.1 DATA behind an informational response", headers(1, response(b"103"), 4) + data(1, b"x", 1), BROKEN),
    Bad("8.1 two hundred informational responses", headers(1, response(b"103"), 4) * 200 + WHOLE, "RST_STREAM PROTOCOL_ERROR | RST_STREAM ENHANCE_YOUR_CALM", FAILED),
    Bad("8.1 trailers without END_STREAM", HEAD + headers(1, block((b"x-t", b"1")), END_HEADERS), BROKEN, EITHER),
    Bad("8.1 two final heads", HEAD + headers(1, OK, END_HEADERS), BROKEN, EITHER),
    Bad("8.3 :status in trailers", HEAD + headers(1, OK), BROKEN, EITHER),
    Bad("8.3 a pseudo-header field of requests", headers(1, block((b":status", b"200"), (b":path", b"/"))), BROKEN),
    Bad("8.3 an unknown pseudo-header field", headers(1, block((b":status", b"200"), (b":what", b"1"))), BROKEN),
    *(Bad(f"8.3 :status behind {name.decode()}", headers(1, block((name, b"1"), (b":status", b"200"))), BROKEN) for name in (b"x-a", b"server", b"content-length", b"date", b"set-cookie", b"te")),
    Bad("8.3.2 :status twice", headers(1, block((b":status", b"200"), (b":status", b"200"))), BROKEN),
    *(Bad(f"8.3.2 :status {value!r}", headers(1, response(value)), BROKEN) for value in (b"", b"20", b"2000", b"abc", b"0200", b"+20", b"099", b"200 OK", b"\xb2\xb2\xb2")),
    Bad("8.2.1 a capital in a name", headers(1, response(b"200", (b"X-A", b"b"))), BROKEN),
    Bad("8.2.1 CR LF in a value", headers(1, response(b"200", (b"x-a", b"b\r\nx-evil: 1"))), BROKEN),
    Bad("8.2.1 NUL in a value", headers(1, response(b"200", (b"x-a", b"\0"))), BROKEN),
    Bad("8.2.1 LF in a trailer", HEAD + headers(1, block((b"x-t", b"1\n"))), BROKEN, EITHER),
    Bad("8.2.2 connection", headers(1, response(b"200", (b"connection", b"close"))), BROKEN),
    Bad("8.2.2 transfer-encoding", headers(1, response(b"200", (b"transfer-encoding", b"chunked"))), BROKEN),
    Bad("8.2.2 upgrade", headers(1, response(b"200", (b"upgrade", b"h2c"))), BROKEN),
    Bad("8.1.1 more than content-length", headers(1, response(b"200", (b"content-length", b"3")), 4) + data(1, b"fine", 1), BROKEN, EITHER),
    Bad("8.1.1 less than content-length", headers(1, response(b"200", (b"content-length", b"5")), 4) + data(1, b"fine", 1), BROKEN, EITHER),
    Bad("8.1.1 DATA behind a 204", headers(1, response(b"204"), 4) + data(1, b"x", 1), BROKEN, EITHER),
    Bad("8.1.1 DATA behind a 304", headers(1, response(b"304"), 4) + data(1, b"x", 1), BROKEN, EITHER),
    Bad("8.1.1 content-length and no content", headers(1, response(b"200", (b"content-length", b"5"))), BROKEN),
    Bad("8.1.1 content-length and trailers too early", headers(1, response(b"200", (b"content-length", b"5")), 4) + headers(1, block((b"x-t", b"1"))), BROKEN, EITHER),
    Bad("8.1.1 two content-lengths", headers(1, response(b"200", (b"content-length", b"4"), (b"content-length", b"5")), 4) + data(1, b"fine", 1), BROKEN, EITHER),
    Bad("8.1.1 content-length that is no number", headers(1, response(b"200", (b"content-length", b"4,4")), 4) + data(1, b"fine", 1), BROKEN, EITHER),
]  # fmt: skip


def reaction(server: Peer) -> str:
    """What the server gets: RST_STREAM on stream 1, the connection's end, or nothing up to a PING's answer."""
    server.send(ping(b"reaction"))
    with contextlib.suppress(AssertionError):
        server.expect(PING, flags=ACK)
        # What the sidecar does with a stream at the level of messages may come a turn later.
    resets = server.got(RST_STREAM, 1)
    if resets:
        return f"RST_STREAM {frames.code_name(resets[0].code)}"
    if server.closed or server.goaways:
        with contextlib.suppress(Silence):
            server.error()
        if not server.goaways:
            return "closed"
        return f"GOAWAY {frames.code_name(server.goaways[-1].code)}" + ("" if server.closed else ", but open")
    return "lives"


@pytest.mark.parametrize("bad", [*GOOD, *CONNECTION, *STREAM], ids=str)
def test_servers(play: Play, bad: Bad) -> None:
    client, server, _ = play.start()
    server.sync()
    server.send(bad.sent)
    got = reaction(server)
    seen = outcome(client, 1)
    wanted = [one.strip() for one in bad.want.split("|")]
    allowed = [one.strip() for one in bad.client.split("|")]
    assert seen in allowed, f"the client got {seen} instead of {bad.client}; the server {got}"
    if not ENVOY_JUDGES:
        assert got in wanted, f"the server got {got} instead of {bad.want}"


@pytest.mark.parametrize("bad", GOOD, ids=str)
def test_good_servers_are_asked_again(play: Play, bad: Bad) -> None:
    """The connection stays in use: the next request comes on stream 3 of it."""
    client, server, lane = play.start()
    server.send(bad.sent)
    client.answer(1)
    client.send(headers(3, request(b"GET", lane.path)))
    assert server.request() == 3
    server.respond(3)
    assert client.answer(3).status == 200
    assert lane.silent()


@pytest.mark.parametrize("bad", [bad for bad in STREAM if "RST_STREAM" in bad.want][:6], ids=str)
def test_a_stream_error_spares_the_neighbours(play: Play, bad: Bad) -> None:
    """One stream breaks, the other on the same connection is answered, and so is the next."""
    client, server, lane = play.start()
    client.send(headers(3, request(b"GET", lane.path)))
    assert server.request() == 3
    server.send(bad.sent)
    assert outcome(client, 1) in EITHER
    server.respond(3, b"spared")
    assert client.answer(3).body == b"spared"
    client.send(headers(5, request(b"GET", lane.path)))
    assert server.request() == 5
    server.respond(5)
    assert client.answer(5).status == 200
    assert lane.silent()


@pytest.mark.parametrize("bad", CONNECTION[:8], ids=str)
def test_behind_a_connection_error_comes_a_new_connection(play: Play, bad: Bad) -> None:
    client, server, lane = play.start()
    server.send(bad.sent)
    outcome(client, 1)
    client.send(headers(3, request(b"GET", lane.path)))
    second = lane.accept()
    second.respond(second.request())
    assert client.answer(3).status == 200
    server.error()
    assert server.closed


@pytest.mark.parametrize(
    "first",
    [ping(), WHOLE, settings(flags=ACK), window_update(0, 5), b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x46"],
    ids=["PING", "HEADERS", "an_acknowledgement", "WINDOW_UPDATE", "HTTP_1.1", "TLS"],
)  # fmt: skip
def test_3_4_the_servers_first_frame_is_settings(play: Play, first: bytes) -> None:
    lane, client = play.lane(), play.client()
    client.send(headers(1, request(b"GET", lane.path)))
    server = lane.accept(first)
    if len(first) < 9:
        server.sock.shutdown(1)
    assert outcome(client, 1) in FAILED
    with contextlib.suppress(Silence):
        server.error()
    assert server.closed
    if server.goaways:
        assert server.goaways[-1].code in (frames.PROTOCOL_ERROR, frames.FRAME_SIZE_ERROR)
