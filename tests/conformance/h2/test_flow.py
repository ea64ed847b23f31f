"""RFC 9113 §5.2, §6.5.3, §6.7 to §6.9 towards clients: windows, settings and PING as they change."""

from __future__ import annotations

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.case import Case, check, outcome
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, INITIAL_WINDOW_SIZE, data, headers, request, settings
from tests.conformance.h2.peer import Silence
from tests.conformance.h2.stage import Play

BOTH = pytest.mark.parametrize("prefix", [b"", b"/h2"], ids=["http1", "http2"])
"""The upstream's protocol."""


def sizes(client: frames.Frame | object, stream: int) -> list[int]:
    """The lengths of the DATA frames of a stream, without the empty ones."""
    return [len(one.payload) for one in client.got(frames.DATA, stream) if one.payload]  # type: ignore[attr-defined]


@BOTH
def test_6_9_1_a_window_of_one(play: Play, prefix: bytes) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 1))
    client.send(headers(1, request(b"GET", prefix + b"/bytes/3")))
    client.expect(frames.DATA)
    client.sync()
    assert sizes(client, 1) == [1]
    client.send(frames.window_update(1, 1))
    client.expect(frames.DATA)
    client.sync()
    assert sizes(client, 1) == [1, 1]
    client.send(frames.window_update(1, 100))
    assert client.answer(1).body == b"xxx"


@BOTH
def test_6_9_1_a_window_of_zero_lets_the_head_and_an_empty_end_pass(play: Play, prefix: bytes) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 0))
    client.send(headers(1, request(b"GET", prefix + b"/bytes/0")))
    assert client.answer(1).status == 200
    client.send(headers(3, request(b"GET", prefix + b"/bytes/5")))
    assert client.head(3).status == 200
    client.sync()
    assert sizes(client, 3) == []
    client.send(settings((INITIAL_WINDOW_SIZE, 10)))
    assert client.answer(3).body == b"xxxxx"


@BOTH
def test_6_9_1_the_connection_window_holds_all_streams(play: Play, prefix: bytes) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 1 << 20))
    client.send(
        headers(1, request(b"GET", prefix + b"/bytes/100000")), headers(3, request(b"GET", prefix + b"/bytes/100000"))
    )
    while client.window > 0:
        client.expect(frames.DATA)
    client.sync()
    assert sum(sizes(client, 1)) + sum(sizes(client, 3)) == 65_535
    client.send(frames.window_update(0, 1))
    client.expect(frames.DATA)
    client.sync()
    assert sum(sizes(client, 1)) + sum(sizes(client, 3)) == 65_536
    client.send(frames.window_update(0, 1 << 20))
    assert len(client.answer(1).body) == len(client.answer(3).body) == 100_000


@BOTH
def test_5_2_a_stalled_stream_holds_no_other(play: Play, prefix: bytes) -> None:
    client = play.client(window=1 << 20)
    client.send(headers(1, request(b"GET", prefix + b"/bytes/500000")))
    while len(client.streams.get(1, frames).body if 1 in client.streams else b"") < 65_535:
        client.expect(frames.DATA)
    for stream in (3, 5, 7):
        client.send(headers(stream, request(b"GET", prefix + b"/bytes/20000")))
        assert len(client.answer(stream).body) == 20_000
    assert sum(sizes(client, 1)) == 65_535
    client.send(frames.window_update(1, 1 << 20))
    assert len(client.answer(1).body) == 500_000


@BOTH
def test_6_9_2_settings_change_the_windows_of_open_streams(play: Play, prefix: bytes) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 3))
    client.send(headers(1, request(b"GET", prefix + b"/bytes/20")))
    client.expect(frames.DATA)
    client.send(settings((INITIAL_WINDOW_SIZE, 5)))
    while sum(sizes(client, 1)) < 5:
        client.expect(frames.DATA)
    client.sync()
    assert sum(sizes(client, 1)) == 5


@BOTH
def test_6_9_2_a_window_below_zero(play: Play, prefix: bytes) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 10))
    client.send(headers(1, request(b"GET", prefix + b"/bytes/20")))
    client.expect(frames.DATA)
    client.send(settings((INITIAL_WINDOW_SIZE, 2)))
    client.sync()
    client.send(frames.window_update(1, 8))  # from -8 to 0
    client.sync()
    assert sum(sizes(client, 1)) == 10
    client.send(frames.window_update(1, 1))
    client.expect(frames.DATA)
    client.sync()
    assert sum(sizes(client, 1)) == 11
    client.send(frames.window_update(1, 100))
    assert len(client.answer(1).body) == 20


def test_6_5_3_the_last_value_of_a_setting_counts(play: Play) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1))
    client.send(headers(1, request(b"GET", b"/bytes/5")))
    client.expect(frames.DATA)
    client.sync()
    assert sizes(client, 1) == [1]


def test_6_5_3_every_settings_is_acknowledged(play: Play) -> None:
    client = play.client()
    client.expect(frames.SETTINGS, flags=frames.ACK)
    client.send(settings(), settings((INITIAL_WINDOW_SIZE, 1000)), settings((0x77, 1)))
    client.sync()
    assert len([one for one in client.got(frames.SETTINGS) if one.flags & frames.ACK]) == 4


def test_6_5_2_frames_no_larger_than_the_client_takes(play: Play) -> None:
    client = play.client((INITIAL_WINDOW_SIZE, 1 << 20), window=1 << 20)
    client.send(headers(1, request(b"GET", b"/bytes/300000")))
    assert len(client.answer(1).body) == 300_000
    assert max(sizes(client, 1)) <= frames.LARGEST


def test_6_7_ping_comes_back_with_its_octets(play: Play) -> None:
    client = play.client()
    client.send(frames.ping(b"\x00\xffabc\r\n\x80"))
    answer = client.expect(frames.PING)
    assert (answer.flags, answer.stream, answer.payload) == (frames.ACK, 0, b"\x00\xffabc\r\n\x80")


def test_6_8_what_is_under_way_is_answered_behind_goaway(play: Play) -> None:
    client = play.client()
    client.send(headers(1, request(b"POST"), END_HEADERS), frames.goaway(0))
    client.send(data(1, b"the rest", END_STREAM))
    assert client.answer(1).body == b"the rest"


@BOTH
def test_6_9_more_data_than_the_streams_window(play: Play, prefix: bytes) -> None:
    """The upstream does not read, so nothing gives the window back."""
    client = play.client()
    client.sync()
    window = client.settings.get(INITIAL_WINDOW_SIZE, 65_535)
    lane = play.lane()
    path = lane.path if prefix else b"/hold"
    client.send(headers(1, request(b"POST", path), END_HEADERS))
    connection = 65_535 + sum(one.number for one in client.got(frames.WINDOW_UPDATE, 0))
    sent = 0
    piece = data(1, b"x" * frames.LARGEST)
    while sent <= max(window, connection) * 2 and not client.streams.get(1):
        client.send(piece * 4)
        sent += 4 * frames.LARGEST
        if sent > 64 << 20:
            break
    got = outcome(client, 1)
    if got != "nothing":
        assert got in ("GOAWAY FLOW_CONTROL_ERROR", "RST_STREAM FLOW_CONTROL_ERROR"), got


@BOTH
def test_6_9_what_is_read_is_given_back(play: Play, prefix: bytes) -> None:
    """A body many times the windows passes when the client keeps to them, also where most is padding."""
    client = play.client((INITIAL_WINDOW_SIZE, 1 << 24), window=1 << 24)
    client.sync()
    stream = client.settings.get(INITIAL_WINDOW_SIZE, 65_535)
    connection = 65_535
    counted = 0
    client.send(headers(1, request(b"POST", prefix + b"/"), END_HEADERS))
    left, pads = 600_000, 300
    while left or pads:
        for one in client.frames[counted:]:
            if one.kind == frames.WINDOW_UPDATE:
                if one.stream == 1:
                    stream += one.number
                elif one.stream == 0:
                    connection += one.number
        counted = len(client.frames)
        room = min(stream, connection)
        if pads and room >= 256:
            client.send(data(1, b"y", pad=254))
            pads, stream, connection = pads - 1, stream - 256, connection - 256
        elif not pads and room:
            size = min(room, left, frames.LARGEST)
            client.send(data(1, b"y" * size))
            left, stream, connection = left - size, stream - size, connection - size
        else:
            client.expect(frames.WINDOW_UPDATE)
    client.send(data(1, b"", END_STREAM))
    assert len(client.answer(1).body) == 600_300


@BOTH
def test_6_9_the_connections_window_is_given_back_for_streams_that_end_early(play: Play, prefix: bytes) -> None:
    """Bodies that nobody wants must not use up the window of the others."""
    client = play.client()
    client.sync()
    for number in range(60):
        stream = 1 + 2 * number
        client.send(headers(stream, request(b"POST", prefix + b"/hold"), END_HEADERS), data(stream, b"x" * 16_000))
        client.send(frames.rst_stream(stream))
        client.sync()
        gained = sum(one.number for one in client.got(frames.WINDOW_UPDATE, 0))
        assert 65_535 + gained > 16_000 * (number + 1), "the window was lost"
    assert client.ask(201).status == 200


def test_6_9_1_no_window_update_beyond_the_largest_window(play: Play) -> None:
    client = play.client()
    client.sync()
    gained = sum(one.number for one in client.got(frames.WINDOW_UPDATE, 0))
    assert 65_535 + gained <= frames.MAX_WINDOW


@pytest.mark.parametrize("split", [1, 7, 9, 10, 24])
def test_4_1_frames_in_small_segments(play: Play, split: int) -> None:
    client = play.client()
    whole = headers(1, request(b"POST"), END_HEADERS) + data(1, b"hello", pad=3) + data(1, b"", END_STREAM)
    for start in range(0, len(whole), split):
        client.send(whole[start : start + split])
    assert client.answer(1).body == b"hello"


def test_5_1_1_many_streams_one_after_the_other(play: Play) -> None:
    client = play.client(window=1 << 20)
    for number in range(200):
        assert client.ask(1 + 2 * number).status == 200


def test_5_many_streams_at_once(play: Play) -> None:
    client = play.client(window=1 << 20)
    client.sync()
    bodies = {1 + 2 * number: b"%d" % number * (number + 1) for number in range(20)}
    client.send(*(headers(stream, request(b"POST"), END_HEADERS) for stream in bodies))
    client.send(*(data(stream, body, END_STREAM) for stream, body in reversed(bodies.items())))
    for stream, body in bodies.items():
        assert client.answer(stream).body == body


def test_6_4_a_reset_reaches_the_upstream(play: Play) -> None:
    client, server, _ = play.start()
    client.send(frames.rst_stream(1, frames.CANCEL))
    assert server.expect(frames.RST_STREAM, 1).code == frames.CANCEL


def test_6_4_a_reset_is_not_answered_with_a_reset(play: Play) -> None:
    client = play.client()
    client.send(headers(1, request(b"GET", b"/hold")), frames.rst_stream(1))
    assert client.ask(3).status == 200
    assert not client.got(frames.RST_STREAM)
    with pytest.raises(Silence):
        client.answer(1, 0.05)


def test_8_7_a_stream_answered_early(play: Play) -> None:
    """A whole response before the end of the request: RST_STREAM NO_ERROR may follow, and the response counts."""
    client = play.client()
    client.send(headers(1, request(b"POST", b"/h2/nowhere", authority=b"app"), END_HEADERS))
    check(client, Case("8.1 the connection goes on", headers(3, request()), "200", stream=3))
