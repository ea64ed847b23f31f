"""RFC 9113 §4 to §7 towards clients: framing, the states of streams, each type of frame."""

from __future__ import annotations

import pytest

from tests.conformance.h2.case import LIVES, Case, check
from tests.conformance.h2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_WINDOW,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    continuation,
    data,
    frame,
    goaway,
    headers,
    ping,
    priority,
    priority_fields,
    request,
    rst_stream,
    settings,
    window_update,
)
from tests.conformance.h2.stage import Play

GET = request()
POST = request(b"POST")
ASK = headers(1, GET)
OPEN = headers(1, POST, END_HEADERS)
HELD = headers(1, request(b"GET", b"/hold"))
"""A request that nobody answers: the stream stays half-closed (remote)."""
SECOND = headers(3, GET)

FRAMING = [
    Case("4.1 a frame of an unknown type is ignored", frame(0x16, 0, 0, b"x" * 8) + ASK, "200"),
    Case("4.1 a frame of an unknown type on an idle stream is ignored", frame(0xFA, 0xFF, 7, b"") + ASK, "200"),
    Case("4.1 undefined flags are ignored", frame(PING, 0x16, 0, b"8 octets"), LIVES),
    Case("4.1 undefined flags of HEADERS are ignored", headers(1, GET, END_HEADERS | END_STREAM | 0xD2 & ~PRIORITISED), "200"),
    Case("4.1 undefined flags of SETTINGS are ignored", settings(flags=0xFE) + ASK, "200"),
    Case("4.1 the reserved bit is ignored", frame(PING, 0, 1 << 31, b"8 octets"), LIVES),
    Case("4.1 the reserved bit of HEADERS is ignored", frame(HEADERS, 5, 1 << 31 | 1, GET), "200"),
    Case("4.2 DATA of 2^14 octets", OPEN + data(1, b"x" * LARGEST, END_STREAM), "200"),
    Case("4.2 DATA over MAX_FRAME_SIZE", OPEN + data(1, b"x" * (LARGEST + 1), END_STREAM), "GOAWAY FRAME_SIZE_ERROR | RST_STREAM FRAME_SIZE_ERROR"),
    Case("4.2 HEADERS over MAX_FRAME_SIZE", headers(1, GET + b"\x00" * (LARGEST + 1)), "GOAWAY FRAME_SIZE_ERROR"),
    Case("4.2 an unknown frame over MAX_FRAME_SIZE", frame(0x16, 0, 0, b"x" * (LARGEST + 1)), "GOAWAY FRAME_SIZE_ERROR"),
    Case("4.2 a length of 2^24-1 is refused before its payload comes", frame(SETTINGS, 0, 0, length=2**24 - 1), "GOAWAY FRAME_SIZE_ERROR"),
    Case("4.3 a header block that cannot be decoded", headers(1, b"\x40"), "GOAWAY COMPRESSION_ERROR"),
    Case("4.3 a header block that ends inside a string", headers(1, GET + b"\x00\x05a"), "GOAWAY COMPRESSION_ERROR"),
    Case("4.3 trailers that cannot be decoded", OPEN + headers(1, b"\xff\xff\xff\xff\xff\xff"), "GOAWAY COMPRESSION_ERROR"),
    Case("4.3 a block on a stream that was reset is still decoded", OPEN + rst_stream(1) + headers(3, b"\xff\xff\xff\xff\xff\xff"), "GOAWAY COMPRESSION_ERROR"),
    Case("4.3 PRIORITY inside a header block", headers(1, GET, END_STREAM) + priority(1), "GOAWAY PROTOCOL_ERROR"),
    Case("4.3 HEADERS of another stream inside a header block", headers(1, GET, END_STREAM) + headers(3, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("4.3 PING inside a header block", headers(1, GET, END_STREAM) + ping(), "GOAWAY PROTOCOL_ERROR"),
    Case("4.3 SETTINGS inside a header block", headers(1, GET, END_STREAM) + settings(), "GOAWAY PROTOCOL_ERROR"),
    Case("4.3 RST_STREAM inside a header block", headers(1, GET, END_STREAM) + rst_stream(1), "GOAWAY PROTOCOL_ERROR"),
]  # fmt: skip

STREAMS = [
    Case("5.1 idle: DATA", data(1, b"x", END_STREAM), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 idle: RST_STREAM", rst_stream(1), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 idle: WINDOW_UPDATE", window_update(1, 100), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 idle: CONTINUATION", continuation(1, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 idle: DATA of a stream of the server's", data(2, b"x", END_STREAM), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 half-closed (remote): DATA", HELD + data(1, b"x", END_STREAM), "RST_STREAM STREAM_CLOSED | GOAWAY STREAM_CLOSED"),
    Case("5.1 half-closed (remote): HEADERS", HELD + ASK, "RST_STREAM STREAM_CLOSED | GOAWAY STREAM_CLOSED"),
    Case("5.1 half-closed (remote): CONTINUATION", HELD + continuation(1, b""), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 half-closed (remote): WINDOW_UPDATE", HELD + window_update(1, 100), LIVES),
    Case("5.1 half-closed (remote): PRIORITY", HELD + priority(1), LIVES),
    Case("5.1 half-closed (remote): RST_STREAM", HELD + rst_stream(1), LIVES),
    Case("5.1 closed by RST_STREAM: DATA", OPEN + rst_stream(1) + data(1, b"x"), "RST_STREAM STREAM_CLOSED | GOAWAY STREAM_CLOSED"),
    Case("5.1 closed by RST_STREAM: HEADERS", OPEN + rst_stream(1) + ASK, "GOAWAY STREAM_CLOSED | RST_STREAM STREAM_CLOSED"),
    Case("5.1 closed by RST_STREAM: CONTINUATION", OPEN + rst_stream(1) + continuation(1, b""), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1 closed by RST_STREAM: PRIORITY", OPEN + rst_stream(1) + priority(1) + SECOND, "200", stream=3),
    Case("5.1 closed by RST_STREAM: RST_STREAM again", OPEN + rst_stream(1) + rst_stream(1) + SECOND, "200", stream=3),
    Case("5.1 closed by RST_STREAM: WINDOW_UPDATE", OPEN + rst_stream(1) + window_update(1, 9) + SECOND, "200", stream=3),
    Case("5.1.1 an even stream", headers(2, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("5.1.1 a stream below the last", headers(5, GET) + headers(3, GET), "GOAWAY PROTOCOL_ERROR", stream=3),
    Case("5.1.1 streams that were skipped are closed", headers(9, GET) + window_update(5, 1) + headers(11, GET), "200 | GOAWAY PROTOCOL_ERROR", stream=11),
    Case("5.1.1 the highest stream of all", headers(2**31 - 1, GET), "200", stream=2**31 - 1),
    Case("5.3 HEADERS with priority", headers(1, GET, priority=priority_fields(0, 255, True)), "200"),
    Case("5.3 HEADERS that depend on themselves", headers(1, GET, priority=priority_fields(1)), "200 | RST_STREAM PROTOCOL_ERROR | GOAWAY PROTOCOL_ERROR"),
    Case("5.3 PRIORITY that depends on itself", priority(1, 1) + ASK, "200 | RST_STREAM PROTOCOL_ERROR | GOAWAY PROTOCOL_ERROR"),
    Case("5.3 PRIORITY on an idle stream, then a lower one is opened", priority(7, 3, 255, True) + ASK, "200"),
    Case("5.5 unknown frames between messages", ASK + frame(0xBB, 0xFF, 1, b"x" * 100) + SECOND, "200", stream=3),
    Case("5.5 an unknown frame inside a header block", headers(1, GET, END_STREAM) + frame(0x16, 0, 0, b"x"), "GOAWAY PROTOCOL_ERROR"),
    Case("5.5 an unknown setting", settings((0xFF, 1), (0x1234, 2)) + ASK, "200"),
]  # fmt: skip

TYPES = [
    Case("6.1 DATA on stream 0", data(0, b"x"), "GOAWAY PROTOCOL_ERROR"),
    Case("6.1 DATA with padding", OPEN + data(1, b"hello", END_STREAM, pad=200), "200"),
    Case("6.1 DATA with nothing but padding", OPEN + data(1, b"", pad=255) + data(1, b"", END_STREAM, pad=0), "200"),
    Case("6.1 padding that leaves nothing", OPEN + frame(DATA, PADDED | END_STREAM, 1, b"\x05\0\0\0\0\0"), "200"),
    Case("6.1 padding as long as the payload", OPEN + frame(DATA, PADDED | END_STREAM, 1, b"\x06hello"), "GOAWAY PROTOCOL_ERROR"),
    Case("6.1 padding longer than the payload", OPEN + frame(DATA, PADDED | END_STREAM, 1, b"\xffhello"), "GOAWAY PROTOCOL_ERROR"),
    Case("6.1 PADDED without a pad length", OPEN + frame(DATA, PADDED, 1, b""), "GOAWAY FRAME_SIZE_ERROR | GOAWAY PROTOCOL_ERROR"),
    Case("6.2 HEADERS on stream 0", headers(0, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.2 HEADERS with padding", headers(1, GET, pad=100), "200"),
    Case("6.2 HEADERS with padding and priority", headers(1, GET, pad=100, priority=priority_fields(0, 7)), "200"),
    Case("6.2 padding longer than the payload", frame(HEADERS, 0xD, 1, bytes([len(GET) + 1]) + GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.2 padding that reaches into the priority", frame(HEADERS, 0x2D, 1, b"\x04" + priority_fields()), "GOAWAY PROTOCOL_ERROR | GOAWAY FRAME_SIZE_ERROR"),
    Case("6.2 PRIORITY flag and too short for it", frame(HEADERS, 0x25, 1, b"\0\0\0"), "GOAWAY FRAME_SIZE_ERROR | GOAWAY PROTOCOL_ERROR"),
    Case("6.2 an empty header block", headers(1, b""), "RST_STREAM PROTOCOL_ERROR | 400"),
    Case("6.3 PRIORITY on stream 0", priority(0), "GOAWAY PROTOCOL_ERROR"),
    Case("6.3 PRIORITY of four octets", OPEN + frame(PRIORITY, 0, 1, b"\0\0\0\0"), "RST_STREAM FRAME_SIZE_ERROR | GOAWAY FRAME_SIZE_ERROR"),
    Case("6.3 PRIORITY of six octets", OPEN + frame(PRIORITY, 0, 1, b"\0" * 6), "RST_STREAM FRAME_SIZE_ERROR | GOAWAY FRAME_SIZE_ERROR"),
    Case("6.4 RST_STREAM on stream 0", rst_stream(0), "GOAWAY PROTOCOL_ERROR"),
    Case("6.4 RST_STREAM on an idle stream", ASK + rst_stream(3), "GOAWAY PROTOCOL_ERROR", stream=3),
    Case("6.4 RST_STREAM of three octets", OPEN + frame(RST_STREAM, 0, 1, b"\0\0\0"), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.4 RST_STREAM of five octets", OPEN + frame(RST_STREAM, 0, 1, b"\0" * 5), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.5 an acknowledgement with a payload", frame(SETTINGS, ACK, 0, b"\0" * 6), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1), "GOAWAY PROTOCOL_ERROR"),
    Case("6.5 an acknowledgement on a stream", frame(SETTINGS, ACK, 1), "GOAWAY PROTOCOL_ERROR"),
    Case("6.5 SETTINGS of three octets", frame(SETTINGS, 0, 0, b"\0\3\0"), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.5 SETTINGS of seven octets", frame(SETTINGS, 0, 0, b"\0" * 7), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.5 an acknowledgement of nothing", settings(flags=ACK) + ASK, "200 | GOAWAY PROTOCOL_ERROR"),
    Case("6.5.2 ENABLE_PUSH 0", settings((ENABLE_PUSH, 0)) + ASK, "200"),
    Case("6.5.2 ENABLE_PUSH 2", settings((ENABLE_PUSH, 2)), "GOAWAY PROTOCOL_ERROR"),
    Case("6.5.2 INITIAL_WINDOW_SIZE 2^31-1", settings((INITIAL_WINDOW_SIZE, MAX_WINDOW)) + ASK, "200"),
    Case("6.5.2 INITIAL_WINDOW_SIZE 2^31", settings((INITIAL_WINDOW_SIZE, 2**31)), "GOAWAY FLOW_CONTROL_ERROR"),
    Case("6.5.2 INITIAL_WINDOW_SIZE 2^32-1", settings((INITIAL_WINDOW_SIZE, 2**32 - 1)), "GOAWAY FLOW_CONTROL_ERROR"),
    Case("6.5.2 MAX_FRAME_SIZE below 2^14", settings((MAX_FRAME_SIZE, LARGEST - 1)), "GOAWAY PROTOCOL_ERROR"),
    Case("6.5.2 MAX_FRAME_SIZE above 2^24-1", settings((MAX_FRAME_SIZE, 2**24)), "GOAWAY PROTOCOL_ERROR"),
    Case("6.5.2 MAX_FRAME_SIZE 2^24-1", settings((MAX_FRAME_SIZE, 2**24 - 1)) + ASK, "200"),
    Case("6.5.2 HEADER_TABLE_SIZE 2^32-1", settings((HEADER_TABLE_SIZE, 2**32 - 1)) + ASK, "200"),
    Case("6.5.2 MAX_HEADER_LIST_SIZE 2^32-1", settings((MAX_HEADER_LIST_SIZE, 2**32 - 1)) + ASK, "200"),
    Case("6.5.2 MAX_CONCURRENT_STREAMS 0 is about pushes", settings((MAX_CONCURRENT_STREAMS, 0)) + ASK, "200"),
    Case("6.5.2 a bad value behind good ones", settings((ENABLE_PUSH, 0), (0x99, 7), (MAX_FRAME_SIZE, 1)), "GOAWAY PROTOCOL_ERROR"),
    Case("8441-3 ENABLE_CONNECT_PROTOCOL of a client", settings((ENABLE_CONNECT_PROTOCOL, 1)) + ASK, "200"),
    Case("6.6 PUSH_PROMISE of a client", OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.6 PUSH_PROMISE on stream 0", frame(PUSH_PROMISE, END_HEADERS, 0, b"\0\0\0\2" + GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.7 an acknowledgement of no PING", ping(b"whatever", ACK), LIVES),
    Case("6.7 PING on a stream", frame(PING, 0, 1, b"8 octets"), "GOAWAY PROTOCOL_ERROR"),
    Case("6.7 PING of seven octets", frame(PING, 0, 0, b"7 octet"), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.7 PING of nine octets", frame(PING, 0, 0, b"9 octets!"), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), "GOAWAY PROTOCOL_ERROR"),
    Case("6.8 GOAWAY of seven octets", frame(GOAWAY, 0, 0, b"\0" * 7), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.9 WINDOW_UPDATE of 0 for the connection", window_update(0, 0), "GOAWAY PROTOCOL_ERROR"),
    Case("6.9 WINDOW_UPDATE of 0 for a stream", HELD + window_update(1, 0), "RST_STREAM PROTOCOL_ERROR | GOAWAY PROTOCOL_ERROR"),
    Case("6.9 the reserved bit of the increment is ignored", HELD + window_update(1, 1 << 31 | 1) + SECOND, "200", stream=3),
    Case("6.9 WINDOW_UPDATE of three octets", frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.9 WINDOW_UPDATE of five octets", HELD + frame(WINDOW_UPDATE, 0, 1, b"\0" * 5), "GOAWAY FRAME_SIZE_ERROR"),
    Case("6.9.1 the connection's window above 2^31-1", window_update(0, MAX_WINDOW) * 2, "GOAWAY FLOW_CONTROL_ERROR"),
    Case("6.9.1 a stream's window above 2^31-1", HELD + window_update(1, MAX_WINDOW), "RST_STREAM FLOW_CONTROL_ERROR"),
    Case("6.9.1 a stream's window of 2^31-1", HELD + window_update(1, MAX_WINDOW - 65_535) + SECOND, "200", stream=3),
    Case("6.9.2 SETTINGS lift a stream's window above 2^31-1", HELD + window_update(1, MAX_WINDOW - 65_535) + settings((INITIAL_WINDOW_SIZE, 65_536)), "GOAWAY FLOW_CONTROL_ERROR"),
    Case("6.10 several CONTINUATION", headers(1, GET[:1], END_STREAM) + continuation(1, GET[1:9], 0) + continuation(1, b"", 0) + continuation(1, GET[9:]), "200"),
    Case("6.10 a block of one octet a frame", headers(1, b"", END_STREAM) + b"".join(continuation(1, GET[i : i + 1], 0) for i in range(len(GET))) + continuation(1, b""), "200 | GOAWAY ENHANCE_YOUR_CALM"),
    Case("6.10 END_STREAM on CONTINUATION means nothing", headers(1, POST, 0) + continuation(1, b"", END_HEADERS | END_STREAM) + data(1, b"still open", END_STREAM), "200"),
    Case("6.10 DATA where CONTINUATION is due", headers(1, POST, 0) + data(1, b"x"), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 HEADERS where CONTINUATION is due", headers(1, GET, END_STREAM) + headers(1, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 CONTINUATION of another stream", headers(1, GET, END_STREAM) + continuation(3, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 CONTINUATION on stream 0", headers(1, GET, END_STREAM) + continuation(0, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 CONTINUATION behind END_HEADERS", OPEN + continuation(1, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 CONTINUATION behind CONTINUATION with END_HEADERS", headers(1, POST, 0) + continuation(1, b"") + continuation(1, b""), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 CONTINUATION behind DATA", OPEN + data(1, b"x") + continuation(1, GET), "GOAWAY PROTOCOL_ERROR"),
    Case("6.10 CONTINUATION over MAX_FRAME_SIZE", headers(1, b"", 0) + continuation(1, b"\0" * (LARGEST + 1)), "GOAWAY FRAME_SIZE_ERROR"),
    Case("7 GOAWAY with an unknown code", ASK + goaway(0, 0xFF), "200 | 200, then closed | 200, then GOAWAY NO_ERROR"),
    Case("7 RST_STREAM with an unknown code", OPEN + rst_stream(1, 0xFF) + SECOND, "200", stream=3),
]  # fmt: skip


@pytest.mark.parametrize("case", [*FRAMING, *STREAMS, *TYPES], ids=str)
def test_frames(play: Play, case: Case) -> None:
    check(play.client(), case)


@pytest.mark.parametrize(
    ("name", "late", "want"),
    [
        ("DATA", data(1, b"x", END_STREAM), "RST_STREAM STREAM_CLOSED | GOAWAY STREAM_CLOSED"),
        ("HEADERS", ASK, "GOAWAY STREAM_CLOSED | RST_STREAM STREAM_CLOSED"),
        ("CONTINUATION", continuation(1, b""), "GOAWAY PROTOCOL_ERROR"),
    ],
)
def test_5_1_closed_by_both(play: Play, name: str, late: bytes, want: str) -> None:
    client = play.client()
    assert client.ask().status == 200
    client.streams.clear()
    check(client, Case(f"5.1 closed: {name}", late, want))


@pytest.mark.parametrize(
    "late", [priority(1), window_update(1, 100), rst_stream(1)], ids=["PRIORITY", "WINDOW_UPDATE", "RST_STREAM"]
)
def test_5_1_closed_by_both_takes_what_was_under_way(play: Play, late: bytes) -> None:
    client = play.client()
    assert client.ask().status == 200
    client.send(late)
    assert client.ask(3).status == 200


def test_5_1_what_follows_our_own_reset_is_ignored(play: Play) -> None:
    client = play.client()
    client.send(headers(1, request(b"POST", b"/", (b"connection", b"close")), END_HEADERS))
    client.answer(1)
    trailers = b"\x40\x03x-a\x01b"  # must still reach the table of the decoder
    client.send(data(1, b"x" * 100), window_update(1, 100), headers(1, trailers), headers(3, GET + b"\xbe"))
    assert client.answer(3).status == 200
    assert play.stage.http1.take()[-1].get(b"x-a") == b"b"


def test_5_1_2_streams_above_the_limit_are_refused(play: Play) -> None:
    client = play.client()
    limit = client.settings[MAX_CONCURRENT_STREAMS]
    assert limit == 20
    client.sync()
    for number in range(limit):
        client.send(headers(1 + 2 * number, request(b"POST"), END_HEADERS))
    over = 1 + 2 * limit
    check(client, Case("5.1.2 one stream too many", headers(over, GET), "RST_STREAM REFUSED_STREAM", stream=over))
    client.send(data(1, b"done", END_STREAM))
    assert client.answer(1).body == b"done"
    assert client.ask(over + 2).status == 200, "there is room again"


def test_5_1_2_a_refused_block_is_decoded(play: Play) -> None:
    client = play.client()
    client.sync()
    for number in range(20):
        client.send(headers(1 + 2 * number, request(b"POST"), END_HEADERS))
    client.send(headers(41, GET + b"\x40\x03x-a\x01b"), rst_stream(1), rst_stream(3))
    assert client.answer(41).reset is not None
    client.send(headers(43, GET + b"\xbe"))
    assert client.answer(43).status == 200
    assert play.stage.http1.take()[-1].get(b"x-a") == b"b"


def test_5_4_1_goaway_names_the_last_stream(play: Play) -> None:
    client = play.client()
    assert client.ask(1).status == client.ask(5).status == 200
    client.send(frame(PING, 0, 0, b"7 octet"))
    assert client.error() == 6
    assert client.goaways[-1].number == 5
    assert client.goaways[-1].stream == 0


def test_5_4_1_goaway_arrives_though_much_is_unread(play: Play) -> None:
    """A close with unread input makes the kernel send a reset, which would overtake the GOAWAY."""
    client = play.client()
    client.send(frame(PING, 0, 0, b"7 octet"), ping() * 20_000)
    assert client.error() == 6


@pytest.mark.parametrize("kind", [DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION])
def test_5_4_1_half_a_frame_and_then_the_end(play: Play, kind: int) -> None:
    client = play.client()
    client.send(OPEN if kind == DATA else b"", frame(kind, 0, 1 if kind == DATA else 0, b"abc", length=100))
    client.sock.shutdown(1)
    client.error()
    assert client.closed
