"""The windows of a connection and of its streams, between our own two sides."""

from proxy.config.http2 import Http2Options
from proxy.http.h2.client import ClientConnection
from proxy.http.h2.frames import CANCEL
from proxy.http.h2.server import ServerConnection
from proxy.http.h2.stream import Stream

_OPTIONS = Http2Options(initial_stream_window_size=64 * 1024, initial_connection_window_size=128 * 1024)


class _Ends:
    """A client and a server; `move` carries bytes both ways until nothing more is said."""

    def __init__(self) -> None:
        self.client = ClientConnection(_OPTIONS, 60 * 1024, 100)
        self.server = ServerConnection(_OPTIONS, 60 * 1024, 100, True)
        self.move()

    def move(self) -> None:
        while self.client.out or self.server.out:
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                if sender.out:
                    receiver.receive(sender.take(), 0.0)
                sender.go_on()

    def post(self, size: int) -> Stream:
        """The server's end of a new stream on which the client sends so much."""
        stream = self.client.open(b"POST", b"", 0.0)
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        self.client.request(stream, fields, [], False)
        self.client.send(stream, [b"x" * size], True, [], [])
        self._first(stream)
        return self.server.streams[stream.id]

    def _first(self, stream: Stream) -> None:
        """The head alone, so that the server can hold the stream before any of its content comes."""
        out, self.client.out = self.client.out, []
        self.server.receive(out[0] + out[1], 0.0)
        self.client.out = out[2:]


def _held(ends: _Ends, size: int) -> Stream:
    stream = ends.post(size)
    ends.server.hold(stream)
    ends.move()
    return stream


def _received(stream: Stream) -> int:
    assert stream.message is not None
    return sum(map(len, stream.message.body))


def test_streams_that_stand_still_leave_their_neighbour_a_window() -> None:
    ends = _Ends()
    still = [_held(ends, 200_000) for _ in range(2)]
    assert all(_received(stream) == 64 * 1024 for stream in still)
    moving = ends.post(50_000)
    ends.move()
    assert _received(moving) == 50_000


def test_what_stands_still_is_bounded_and_its_end_gives_the_window_back() -> None:
    ends = _Ends()
    still = [_held(ends, 200_000) for _ in range(20)]
    assert 128 * 1024 <= sum(map(_received, still)) <= 2 * 128 * 1024 + 64 * 1024
    late = ends.post(50_000)
    ends.move()
    assert _received(late) < 50_000
    for stream in still:
        ends.server.reset(stream, CANCEL)
    ends.move()
    assert _received(late) == 50_000


def test_a_stream_goes_on_when_it_is_taken_on_again() -> None:
    ends = _Ends()
    stream = _held(ends, 200_000)
    total = 0
    for _ in range(10):
        assert stream.message is not None
        total += _received(stream)
        stream.message.body = []
        ends.server.release(stream)
        ends.server.give_back(stream)
        ends.move()
    assert total == 200_000
    assert stream.message is not None
    assert stream.message.done


def test_what_comes_before_an_upgrade_is_agreed_on_waits() -> None:
    options = Http2Options(allow_connect=True, initial_stream_window_size=64 * 1024)
    client, server = ClientConnection(options, 60 * 1024, 100), ServerConnection(options, 60 * 1024, 100, True)
    server.receive(client.take(), 0.0)
    client.receive(server.take(), 0.0)
    mine = client.open(b"GET", b"websocket", 0.0)
    fields = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/")]
    client.request(mine, [*fields, (b":authority", b"a")], [], False)
    client.send(mine, [b"y" * 200_000], False, [], [])
    for _ in range(5):
        if client.out:
            server.receive(client.take(), 0.0)
        for stream in server.streams.values():
            server.give_back(stream)
        if server.out:
            client.receive(server.take(), 0.0)
        client.go_on()
    stream = server.streams[1]
    assert stream.request is not None
    assert stream.request.done
    assert not stream.request.body
    server.switch(stream)
    assert not stream.request.done
    assert sum(map(len, stream.request.body)) == 64 * 1024
