"""RFC 9113 where time or order cannot be had through sockets: the server's side of the codec alone."""

from __future__ import annotations

import pytest

from proxy.config.http2 import Http2Options
from proxy.http.h2.frames import ConnectionFailed
from proxy.http.h2.server import ServerConnection
from proxy.http.h2.stream import OPEN, Stream
from tests.conformance.h2 import frames
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, PREFACE, Frame, data, headers, ping, request, settings

GET = request()
POST = request(b"POST")


class Codec:
    """A ServerConnection with its streams, and what it says as frames."""

    def __init__(self, options: Http2Options | None = None) -> None:
        self.server = ServerConnection(options or Http2Options(), 60_000, 100, True)
        self.now = 1000.0
        self.streams: dict[int, Stream] = {}
        self.receive(PREFACE, settings(), frames.SETTINGS_ACK)
        self.said()

    def receive(self, *data: bytes) -> None:
        self.server.receive(b"".join(data), self.now)
        for stream in self.server.ready:
            stream.queued = False
            self.streams[stream.id] = stream
        self.server.ready = []

    def said(self) -> list[Frame]:
        buffer = bytearray(self.server.take())
        found = []
        while (one := frames.parse(buffer)) is not None:
            found.append(one)
        return found

    def fails(self, *data: bytes) -> int:
        """The code of the error that these bytes are."""
        with pytest.raises(ConnectionFailed) as caught:
            self.receive(*data)
        return caught.value.code


def test_5_1_frames_under_way_on_a_thousand_streams_that_we_reset() -> None:
    """An endpoint that dies takes all its streams with it; what their client had sent by then is no fault of its."""
    codec = Codec()
    numbers = range(1, 2 * 1000, 2)
    codec.receive(*(headers(number, POST, END_HEADERS) for number in numbers))
    for stream in list(codec.streams.values()):
        codec.server.reset(stream, frames.INTERNAL_ERROR)
    assert len([one for one in codec.said() if one.kind == frames.RST_STREAM]) == 1000
    codec.receive(*(data(number, b"under way") for number in numbers))
    codec.receive(*(headers(number, frames.block((b"x-t", b"1"))) for number in numbers))
    codec.receive(headers(2001, GET))
    assert codec.streams[2001].reset == OPEN


def test_6_8_frames_on_streams_above_our_goaway_are_ignored() -> None:
    """Their blocks are decoded, their content counts, and what is under way goes on."""
    codec = Codec()
    codec.receive(headers(1, POST, END_HEADERS))
    codec.server.close(frames.NO_ERROR, "")
    assert [one.number for one in codec.said()] == [1]
    window = codec.server.receive_window
    late = frames.literal(b"x-late", b"1", 0x40)
    codec.receive(
        headers(3, POST + late, END_HEADERS), data(3, b"x" * 100), frames.window_update(3, 1), frames.rst_stream(3)
    )
    assert 3 not in codec.streams
    assert codec.server.receive_window == window - 100
    codec.receive(data(1, b"still here"), headers(1, frames.block((b"x-t", b"1")) + frames.indexed(62)))
    assert codec.streams[1].message is not None
    assert codec.streams[1].message.done
    assert codec.streams[1].message.trailers == [(b"x-t", b"1"), (b"x-late", b"1")]


def test_6_8_the_last_call_serves_what_comes_until_it_is_heard() -> None:
    codec = Codec()
    codec.server.last_call()
    first, asked = codec.said()
    assert (first.kind, first.number, first.code) == (frames.GOAWAY, frames.MAX_WINDOW, frames.NO_ERROR)
    codec.receive(headers(1, GET))
    assert codec.streams[1].request is not None
    assert not codec.server.last_call_heard
    codec.receive(ping(asked.payload, frames.ACK))
    assert codec.server.last_call_heard
    codec.server.close(frames.NO_ERROR, "")
    codec.server.close(frames.NO_ERROR, "")
    assert [one.number for one in codec.said()] == [1], "once, with the last stream"
    codec.receive(headers(3, GET))
    assert 3 not in codec.streams


def test_10_5_empty_frames_of_several_streams() -> None:
    """One that ends its stream is no part of a flood."""
    codec = Codec()
    codec.receive(*(headers(number, POST, END_HEADERS) for number in (1, 3, 5)))
    codec.receive(data(1), data(3, b"", END_STREAM), data(5), data(1, b"", END_STREAM), data(5, b"", END_STREAM))
    assert all(stream.message and stream.message.done for stream in codec.streams.values())
    codec.receive(headers(7, POST, END_HEADERS), data(7))
    assert codec.fails(data(7)) == frames.ENHANCE_YOUR_CALM


def test_10_5_a_ping_for_each_round_trip_of_a_download_is_no_flood() -> None:
    """Some clients measure the bandwidth so, thousands of times a second on a short way."""
    codec = Codec()
    codec.receive(frames.window_update(0, 1 << 30), headers(1, GET))
    stream = codec.streams[1]
    codec.receive(frames.window_update(1, 1 << 30))
    codec.server.send_head(stream, [(b":status", b"200")], [], False)
    for _ in range(5_000):
        codec.server.send(stream, [b"x"], False, [], [])
        codec.receive(ping())
        codec.said()
        codec.server.go_on()


def test_10_5_pings_of_an_idle_client_are_counted_by_the_second() -> None:
    codec = Codec(Http2Options(max_outbound_control_frames=100))
    for _ in range(20):
        codec.receive(ping() * 90)
        codec.now += 1.0
    assert codec.fails(ping() * 110) == frames.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("first", [b"\0\0\0\4\1\0\0\0\0", frames.ping()], ids=["acknowledgement", "ping"])
def test_3_4_settings_come_first(first: bytes) -> None:
    server = ServerConnection(Http2Options(), 60_000, 100, True)
    with pytest.raises(ConnectionFailed) as caught:
        server.receive(PREFACE + first, 0.0)
    assert caught.value.code == frames.PROTOCOL_ERROR


def test_6_5_3_a_smaller_window_holds_from_the_acknowledgement_on() -> None:
    """Until then the client may use the 65,535 that it knows."""
    server = ServerConnection(Http2Options(initial_stream_window_size=1000), 60_000, 100, True)
    server.receive(PREFACE + settings() + headers(1, POST, END_HEADERS) + data(1, b"x" * 16_000), 0.0)
    stream = server.streams[1]
    assert stream.reset == OPEN
    server.receive(frames.SETTINGS_ACK, 0.0)
    assert stream.receive_window == 1000 - 16_000
    server.receive(data(1, b"x"), 0.0)
    assert stream.reset == frames.FLOW_CONTROL_ERROR
    server.receive(headers(3, POST, END_HEADERS) + data(3, b"x" * 1000), 0.0)
    assert server.streams[3].receive_window == 0


def test_7541_4_2_a_smaller_table_holds_from_the_acknowledgement_on() -> None:
    """The next block must begin with a size that is not above it."""
    options = Http2Options(hpack_table_size=100)
    large = frames.literal(b"x-a", b"v" * 200, 0x40)
    codec = ServerConnection(options, 60_000, 100, True)
    codec.receive(PREFACE + settings() + headers(1, GET + large) + headers(3, GET + frames.indexed(62)), 0.0)
    assert codec.streams[3].reset == OPEN
    codec.receive(frames.SETTINGS_ACK + headers(5, frames.table_size(100) + GET), 0.0)
    for block in (GET, frames.table_size(101) + GET):
        other = ServerConnection(options, 60_000, 100, True)
        other.receive(PREFACE + settings() + frames.SETTINGS_ACK, 0.0)
        with pytest.raises(ConnectionFailed) as caught:
            other.receive(headers(1, block), 0.0)
        assert caught.value.code == frames.COMPRESSION_ERROR
