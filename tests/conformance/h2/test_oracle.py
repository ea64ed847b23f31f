"""The h2 library as the oracle: what it says is understood as it understands it, and both can talk to each other
whatever the windows, in whatever segments."""

from __future__ import annotations

import random
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config.http2 import Http2Options
from proxy.http.h2.client import ClientConnection
from proxy.http.h2.connection import Connection
from proxy.http.h2.server import ServerConnection
from proxy.http.h2.stream import OPEN, Stream
from tests.fuzz import driven

NOW = 1000.0
SEEDS = st.integers(0, 2**48)
EXAMPLES = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

Fields = list[tuple[bytes, bytes]]


def library(client: bool) -> h2.connection.H2Connection:
    """One side by h2, with its first bytes still in it."""
    config = h2.config.H2Configuration(client_side=client, header_encoding=None)
    found = h2.connection.H2Connection(config)
    found.initiate_connection()
    return found


def some_fields(rng: random.Random) -> Fields:
    """Ordinary fields."""
    names = [b"x-%d" % rng.randrange(20), b"accept", b"user-agent", b"cache-control", b"x-long"]
    values = [b"", b"a", b"text/html", b"v" * rng.randrange(300), b"\xe4\x80", b"a, b;q=0.5"]
    return [(rng.choice(names), rng.choice(values)) for _ in range(rng.randint(0, 8))]


def act(peer: h2.connection.H2Connection, rng: random.Random, streams: list[int], server: bool) -> None:
    """One thing that h2 lets its user do, among the streams that are open for sending."""
    what = rng.randrange(12)
    if what == 0:
        peer.ping(rng.randbytes(8))
    elif what == 1:
        peer.increment_flow_control_window(rng.randint(1, 10_000))
    elif what == 2:
        size = rng.choice([0, 1, 100, 65_535, 100_000])
        names = h2.settings.SettingCodes
        peer.update_settings({
            names.INITIAL_WINDOW_SIZE: size, names.MAX_FRAME_SIZE: rng.choice([16_384, 20_000]),
            names.HEADER_TABLE_SIZE: rng.choice([0, 64, 4096]), names.MAX_CONCURRENT_STREAMS: rng.randint(1, 50),
        })  # fmt: skip
    elif streams:
        _act_on(peer, rng, streams, what, server)


def _act_on(peer: h2.connection.H2Connection, rng: random.Random, streams: list[int], what: int, server: bool) -> None:
    stream = rng.choice(streams)
    if what == 3 and not server:
        peer.prioritize(stream, weight=rng.randint(1, 256), depends_on=0, exclusive=rng.random() < 0.5)
    elif what == 4:
        peer.increment_flow_control_window(rng.randint(1, 10_000), stream)
    elif what == 5 and rng.random() < 0.4:
        peer.reset_stream(stream, rng.choice(list(h2.errors.ErrorCodes)))
        streams.remove(stream)
    elif what == 6:
        peer.send_headers(stream, [(b"x-trailer", b"%d" % rng.randrange(9)), (b"grpc-status", b"0")], end_stream=True)
        streams.remove(stream)
    elif what == 7:
        peer.end_stream(stream)
        streams.remove(stream)
    else:
        size, pad = rng.choice([0, 1, 10, 500]), rng.choice([None, 0, 20])
        if size or pad is not None or rng.random() < 0.05:
            peer.send_data(stream, rng.randbytes(size), pad_length=pad)


def requests(rng: random.Random) -> bytes:
    """What h2 as a client sends when much is done with it."""
    peer = library(client=True)
    streams: list[int] = []
    for _ in range(rng.randint(1, 30)):
        if rng.random() < 0.3:
            stream = peer.get_next_available_stream_id()
            if len(streams) < 10:
                ends = rng.random() < 0.3
                pseudo = [
                    (b":method", rng.choice([b"GET", b"POST"])),
                    (b":scheme", b"http"),
                    (b":authority", b"app"),
                    (b":path", b"/%d" % stream),
                ]
                peer.send_headers(stream, [*pseudo, *some_fields(rng)], end_stream=ends)
                streams += [] if ends else [stream]
        else:
            act(peer, rng, streams, False)
    sent: bytes = peer.data_to_send()
    return sent


def responses(rng: random.Random, asked: int) -> bytes:
    """What h2 as a server sends to that many requests."""
    peer, asker = library(client=False), library(client=True)
    for number in range(asked):
        method = rng.choice([b"GET", b"POST"])
        fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")]
        asker.send_headers(1 + 2 * number, fields, end_stream=True)
    peer.receive_data(asker.data_to_send())
    heads, streams = [1 + 2 * number for number in range(asked)], []
    for _ in range(rng.randint(1, 30)):
        if heads and rng.random() < 0.4:
            stream = heads.pop(0)
            if rng.random() < 0.3:
                peer.send_headers(stream, [(b":status", b"103"), (b"link", b"</x>")])
            ends = rng.random() < 0.3
            peer.send_headers(stream, [(b":status", rng.choice([b"200", b"404"])), *some_fields(rng)], end_stream=ends)
            streams += [] if ends else [stream]
        else:
            act(peer, rng, streams, True)
    sent: bytes = peer.data_to_send()
    return sent


def by_library(peer: h2.connection.H2Connection, data: bytes) -> dict[int, driven.Seen]:
    """What h2 makes of it."""
    found: dict[int, driven.Seen] = {}
    for event in peer.receive_data(data):
        number = getattr(event, "stream_id", None)
        if not number:
            continue
        seen = found.setdefault(number, driven.Seen())
        if isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
            seen.head = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.InformationalResponseReceived):
            seen.interim.append(event.headers[0][1])
        elif isinstance(event, h2.events.DataReceived):
            seen.body += event.data
        elif isinstance(event, h2.events.TrailersReceived):
            seen.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            seen.done = True
        elif isinstance(event, h2.events.StreamReset):
            seen.reset = int(event.error_code)
    return found


def compare(ours: driven.Driven, theirs: dict[int, driven.Seen], peer: h2.connection.H2Connection) -> None:
    """Both understood the same, and have the same windows."""
    if ours.failed == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM:
        return  # more WINDOW_UPDATE than the limit allows, which h2 has not
    assert ours.failed is None
    for number, seen in theirs.items():
        if seen.head is None and seen.reset == OPEN and not seen.interim:
            continue  # nothing but its windows
        mine = ours.streams[number]
        assert mine.reset == seen.reset
        if seen.reset != OPEN:
            continue
        assert (mine.body, mine.trailers, mine.done) == (seen.body, seen.trailers, seen.done)
        assert len(mine.interim) == len(seen.interim)
        if seen.head is not None:
            pseudo = {name: value for name, value in seen.head if name.startswith(b":")}
            assert mine.head["headers"] == [pair for pair in seen.head if not pair[0].startswith(b":")]
            if b":method" in pseudo:
                got = (mine.head["method"], mine.head["target"], mine.head["authority"])
                assert got == (pseudo[b":method"], pseudo[b":path"], pseudo[b":authority"])
            else:
                assert mine.head["status"] == int(pseudo[b":status"])
    codec = ours.codec
    assert codec.send_window == peer.outbound_flow_control_window
    assert codec.peer_window == peer.remote_settings.initial_window_size
    assert codec.peer_frame_size == peer.remote_settings.max_frame_size
    for number, stream in codec.streams.items():
        assert min(stream.send_window, codec.send_window) == peer.local_flow_control_window(number)


@EXAMPLES
@given(SEEDS)
def test_requests_of_the_library(seed: int) -> None:
    data = requests(random.Random(seed))
    ours, peer = driven.server(), library(client=False)
    ours.feed(data)
    compare(ours, by_library(peer, data), peer)


@EXAMPLES
@given(SEEDS)
def test_responses_of_the_library(seed: int) -> None:
    rng = random.Random(seed)
    asked = rng.randint(1, 6)
    data = responses(rng, asked)
    ours, peer = driven.client([b"GET"] * asked), library(client=True)
    for number in range(asked):
        fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")]
        peer.send_headers(1 + 2 * number, fields, end_stream=True)
    ours.feed(data)
    compare(ours, by_library(peer, data), peer)


@EXAMPLES
@given(SEEDS)
def test_any_split_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    client = rng.random() < 0.5
    data = responses(rng, 4) if client else requests(rng)
    make = (lambda: driven.client([b"GET"] * 4)) if client else driven.server
    whole, octets, parts = make(), make(), make()
    whole.feed(data)
    parts.feed_split(data, [rng.randrange(len(data)) for _ in range(rng.randint(1, 20))])
    octets.feed_split(data, range(len(data)))
    assert whole.understood() == parts.understood() == octets.understood()
    assert whole.failed == parts.failed == octets.failed
    for one in (parts, octets):
        assert one.codec.send_window == whole.codec.send_window
        assert one.codec.receive_window == whole.codec.receive_window


class Echo:
    """Our server: each request's content and trailers come back, under random pressure."""

    def __init__(self, rng: random.Random, options: Http2Options) -> None:
        self.rng = rng
        self.codec = ServerConnection(options, 60_000, 100, True)
        self.held: list[Stream] = []

    def serve(self) -> None:
        """What the worker does behind `receive`."""
        codec, rng = self.codec, self.rng
        ready, codec.ready = codec.ready, []
        for stream in ready:
            stream.queued = False
            message = stream.message
            if stream.reset != OPEN or message is None:
                continue
            if stream.owner is None:
                stream.owner = self
                codec.send_head(stream, [(b":status", b"200")], [], False)
            chunks, message.body = message.body, []
            codec.send(stream, chunks, message.done, message.trailers, [])
            if rng.random() < 0.2 and not message.done:
                codec.hold(stream)
                self.held.append(stream)
            codec.give_back(stream)
        if self.held and rng.random() < 0.5:
            codec.release(self.held.pop())
        if rng.random() < 0.2:
            codec.stalled = not codec.stalled


def pass_on(codec: Connection, peer: h2.connection.H2Connection, rng: random.Random) -> tuple[list[Any], bool]:
    """Bytes both ways, in segments. The events at h2, and whether anything moved."""
    events, moved = [], False
    out = peer.data_to_send()
    while out:
        moved = True
        cut = rng.randint(1, len(out)) if rng.random() < 0.8 else len(out)
        codec.receive(out[:cut], NOW)
        out = out[cut:]
    if not codec.stalled:
        codec.go_on()
        while codec.out:
            moved = True
            data = codec.take()
            codec.go_on()
            while data:
                cut = rng.randint(1, len(data)) if rng.random() < 0.5 else len(data)
                events += peer.receive_data(data[:cut])
                data = data[cut:]
    codec.drained = []
    return events, moved


def pour(peer: h2.connection.H2Connection, left: dict[int, bytes], rng: random.Random, trailers: bool) -> bool:
    """Send of what is left as much as the windows allow. Whether any was sent."""
    sent = False
    for stream in sorted(left, key=lambda _: rng.random()):
        body = left[stream]
        room = min(
            peer.local_flow_control_window(stream),
            peer.max_outbound_frame_size,
            len(body),
            rng.choice([7, 1000, 20_000]),
        )
        if body and room <= 0:
            continue
        if body:
            peer.send_data(stream, body[:room])
        left[stream] = body = body[room:]
        sent = True
        if not body:
            del left[stream]
            if trailers:
                peer.send_headers(stream, [(b"x-sum", b"%d" % stream)], end_stream=True)
            else:
                peer.end_stream(stream)
    return sent


@EXAMPLES
@given(SEEDS)
def test_our_server_and_the_librarys_client(seed: int) -> None:
    """All that is sent comes back, whatever the windows, the frames' sizes, what is held and what stalls."""
    rng = random.Random(seed)
    ours, theirs = rng.choice([1, 100, 65_535, 256 * 1024]), rng.choice([1, 50, 5_000, 65_535])
    most = min(40 * min(ours, theirs), 20_000)
    whole = rng.choice([65_535, 1 << 20])
    echo = Echo(rng, Http2Options(initial_stream_window_size=ours, initial_connection_window_size=whole))
    peer = library(client=True)
    peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: theirs})
    bodies = {1 + 2 * number: rng.randbytes(rng.choice([0, 1, most // 2, most])) for number in range(rng.randint(1, 5))}
    if most == 20_000 and rng.random() < 0.3:
        bodies[101] = rng.randbytes(150_000)
    trailers = rng.random() < 0.5
    for stream in bodies:
        peer.send_headers(
            stream, [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")]
        )
    left, got, ended = dict(bodies), dict.fromkeys(bodies, b""), {}
    unread: list[tuple[int, int]] = []
    still = 0
    while len(ended) < len(bodies):
        sent = pour(peer, left, rng, trailers)
        events, moved = pass_on(echo.codec, peer, rng)
        echo.serve()
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                got[event.stream_id] += event.data
                unread.append((event.flow_controlled_length, event.stream_id))
            elif isinstance(event, h2.events.StreamEnded):
                ended[event.stream_id] = True
            assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event
        if rng.random() < 0.7:
            for size, stream in unread:
                if size and stream not in ended:
                    peer.increment_flow_control_window(size, stream)
                if size:
                    peer.increment_flow_control_window(size)
            unread = []
        still = 0 if sent or moved else still + 1
        assert still < 100, "they wait for each other"
    assert got == bodies
    assert not echo.codec.streams


@EXAMPLES
@given(SEEDS)
def test_our_client_and_the_librarys_server(seed: int) -> None:
    """The same the other way: our requests' bodies come back from h2."""
    rng = random.Random(seed)
    ours, theirs = rng.choice([10, 1000, 65_535]), rng.choice([1, 50, 5_000, 65_535])
    most = min(40 * min(ours, theirs), 20_000)
    options = Http2Options(initial_stream_window_size=ours, max_consecutive_inbound_frames_with_empty_payload=20)
    codec = ClientConnection(options, 60_000, 100)
    peer = library(client=False)
    peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: theirs})
    streams: dict[int, tuple[Stream, bytes]] = {}
    for _ in range(rng.randint(1, 5)):
        stream = codec.open(b"POST", b"", NOW)
        body = rng.randbytes(rng.choice([0, 1, most // 2, most]))
        streams[stream.id] = (stream, body)
        codec.request(
            stream, [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")], [], False
        )
        half = len(body) // 2
        codec.send(stream, [body[:half]] if half else [], False, [], [])
        codec.send(stream, [body[half:]], True, [(b"x-sum", b"1")] if rng.random() < 0.5 else [], [])
    got = dict.fromkeys(streams, b"")
    arrived: dict[int, bytes] = {}
    left: dict[int, bytes] = {}
    still = 0
    while any(not (stream.message and stream.message.done) for stream, _ in streams.values()):
        events, moved = pass_on(codec, peer, rng)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                arrived[event.stream_id] = arrived.get(event.stream_id, b"") + event.data
                peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                assert arrived.get(event.stream_id, b"") == streams[event.stream_id][1]
                peer.send_headers(event.stream_id, [(b":status", b"200")])
                left[event.stream_id] = streams[event.stream_id][1]
        sent = pour(peer, left, rng, rng.random() < 0.5)
        ready, codec.ready = codec.ready, []
        for stream in ready:
            stream.queued = False
            assert stream.reset == OPEN, stream.broken
            if stream.message is not None:
                got[stream.id] += b"".join(stream.message.body)
                stream.message.body = []
            codec.give_back(stream)
        still = 0 if sent or moved else still + 1
        assert still < 100, "they wait for each other"
    assert got == {number: body for number, (_, body) in streams.items()}
    assert not codec.streams
