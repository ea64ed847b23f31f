"""RFC 9113 §5.2 to §8.1 towards upstreams: windows, sizes and messages, and the cases of gRPC's interop tests."""

from __future__ import annotations

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    block,
    data,
    goaway,
    headers,
    ping,
    request,
    response,
    rst_stream,
    settings,
    window_update,
)
from tests.conformance.h2.peer import Server
from tests.conformance.h2.stage import Play

HEAD = headers(1, response(), END_HEADERS)
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
GRPC_HEAD = headers(1, response(b"200", (b"content-type", b"application/grpc")), END_HEADERS)


def sent_data(server: Server, stream: int) -> int:
    """The octets of DATA that came on a stream."""
    return sum(len(one.payload) for one in server.got(DATA, stream))


# ---- §6.5, §6.9: windows and sizes of the server's


def test_6_9_the_servers_window_holds_the_body_back(play: Play) -> None:
    client, server, _ = play.start(first=settings((INITIAL_WINDOW_SIZE, 0)), method=b"POST")
    server.sync()
    client.send(data(1, b"0123456789", END_STREAM))
    client.sync()
    server.sync()
    before = sent_data(server, 1)  # what went out before our SETTINGS were known
    assert before in (0, 10)
    server.send(window_update(1, 4))
    if not before:
        server.expect(DATA, 1)
        server.sync()
        assert sent_data(server, 1) == 4
        server.send(window_update(1, 100))
    while not server.streams[1].ended:
        server.expect(DATA, 1)
    assert server.streams[1].body == b"0123456789"
    server.respond(1)
    assert client.answer(1).status == 200


def test_6_9_2_the_servers_window_becomes_negative(play: Play) -> None:
    client, server, lane = play.start(method=b"POST")
    client.send(data(1, b"x" * 16_000) * 3)
    while sent_data(server, 1) < 48_000:
        server.expect(DATA, 1)
    server.send(settings((INITIAL_WINDOW_SIZE, 1_000)))  # 17,535 becomes -47,000
    server.expect(frames.SETTINGS, flags=frames.ACK)
    client.send(data(1, b"y" * 5_000, END_STREAM))
    client.sync()
    server.send(window_update(1, 47_000))
    server.sync()
    assert sent_data(server, 1) == 48_000
    server.send(window_update(1, 5_000))
    while not server.streams[1].ended:
        server.expect(DATA, 1)
    assert server.streams[1].body.endswith(b"y" * 5_000)
    server.respond(1)
    assert client.answer(1).status == 200
    assert lane.silent()


def test_6_9_the_servers_connection_window_is_shared(play: Play) -> None:
    client, server, lane = play.start(first=settings((INITIAL_WINDOW_SIZE, 1 << 20)), method=b"POST")
    server.sync()
    lane.ask(client, 3, b"POST")
    assert server.request(3) == 3
    for stream in (1, 3):
        client.send(data(stream, b"z" * 15_000) * 3)
    while sent_data(server, 1) + sent_data(server, 3) < 65_535:
        server.expect(DATA)
    server.sync()
    assert sent_data(server, 1) + sent_data(server, 3) == 65_535
    server.send(window_update(0, 1 << 20))
    client.send(data(1, b"", END_STREAM), data(3, b"", END_STREAM))
    while not (server.streams[1].ended and server.streams[3].ended):
        server.expect(DATA)
    assert sent_data(server, 1) == sent_data(server, 3) == 45_000


def test_6_5_2_the_servers_frame_size_is_kept_to(play: Play) -> None:
    client, server, _ = play.start(method=b"POST")
    server.send(settings((MAX_FRAME_SIZE, 20_000), (INITIAL_WINDOW_SIZE, 1 << 20)), window_update(0, 1 << 20))
    server.sync()
    client.send(*[data(1, b"x" * 16_384)] * 8)
    client.send(data(1, b"", END_STREAM))
    while not server.streams[1].ended:
        server.expect(DATA, 1)
    assert max(len(one.payload) for one in server.got(DATA, 1)) <= 20_000
    assert sent_data(server, 1) == 8 * 16_384


def test_6_5_2_a_head_larger_than_a_frame(play: Play) -> None:
    """It goes on in CONTINUATION frames, with nothing in between."""
    lane, client = play.lane(), play.client()
    many = [(b"x-%d" % number, b"v" * 900) for number in range(40)]
    whole = request(b"GET", lane.path, *many)
    parts = [whole[at : at + 16_000] for at in range(0, len(whole), 16_000)]
    client.send(headers(1, parts[0], END_STREAM), *(frames.continuation(1, part, 0) for part in parts[1:]))
    client.send(frames.continuation(1, b""))
    server = lane.accept()
    server.request()
    assert [pair for pair in server.streams[1].fields if pair[0].startswith(b"x-") and pair[0][2:].isdigit()] == many
    assert server.got(frames.CONTINUATION, 1)
    assert max(len(one.payload) for one in server.frames) <= frames.LARGEST
    whole = response(b"200", *many)
    parts = [whole[at : at + 16_000] for at in range(0, len(whole), 16_000)]
    server.send(headers(1, parts[0], END_STREAM), *(frames.continuation(1, part, 0) for part in parts[1:]))
    server.send(frames.continuation(1, b""))
    assert [pair for pair in client.answer(1).fields if pair in many] == many
    assert client.got(frames.CONTINUATION, 1)


@pytest.mark.parametrize("size", [0, 100])
def test_7541_4_2_the_servers_table_size_is_kept_to(play: Play, size: int) -> None:
    client, server, lane = play.start(first=settings((HEADER_TABLE_SIZE, size)))
    server.expect(frames.SETTINGS, flags=frames.ACK)
    server._decoder.max_allowed_table_size = size
    server.respond(1)
    for stream in range(3, 15, 2):
        lane.ask(client, stream)
        server.respond(server.request())
        assert client.answer(stream).status == 200
    assert server._decoder.header_table_size <= size


def test_5_2_a_slow_client_slows_the_server(play: Play) -> None:
    """What the client does not read is not taken from the server beyond a bound; nothing is lost."""
    client, server, _ = play.start()
    server.sync()
    stream = server.settings.get(INITIAL_WINDOW_SIZE, 65_535)
    connection = 65_535 + sum(one.number for one in server.got(frames.WINDOW_UPDATE, 0))
    server.send(HEAD)
    sent = seen = 0
    idle = 0
    while idle < 3:
        for one in server.frames[seen:]:
            if one.kind == frames.WINDOW_UPDATE:
                if one.stream:
                    stream += one.number
                else:
                    connection += one.number
        seen = len(server.frames)
        room = min(stream, connection, frames.LARGEST)
        if room < 1_000:
            server.sync()
            idle += 1
            continue
        server.send(data(1, b"s" * room))
        sent, stream, connection, idle = sent + room, stream - room, connection - room, 0
        assert sent < 8 << 20, "the server is never slowed"
    client.send(window_update(1, 1 << 30), window_update(0, 1 << 30))
    server.send(data(1, b"", END_STREAM))
    assert len(client.answer(1).body) == sent


# ---- §8.1: one message after and beside the other


def test_8_1_an_informational_response_passes_at_once(play: Play) -> None:
    client, server, _ = play.start()
    server.send(headers(1, response(b"103", (b"link", b"</style.css>")), END_HEADERS))
    client.expect(frames.HEADERS, 1)
    assert client.streams[1].interim == [103]
    server.respond(1, b"and the rest")
    assert client.answer(1).body == b"and the rest"


def test_8_1_100_continue(play: Play) -> None:
    client, server, _ = play.start((b"expect", b"100-continue"), method=b"POST")
    server.send(headers(1, response(b"100"), END_HEADERS))
    client.send(data(1, b"the body", END_STREAM))
    while not server.streams[1].ended:
        server.expect(DATA, 1)
    server.respond(1)
    assert client.answer(1).status == 200


def test_8_1_an_answer_before_the_end_of_the_request(play: Play) -> None:
    """RST_STREAM NO_ERROR behind a whole answer: the answer counts, the upload ends without an error."""
    client, server, _ = play.start(method=b"POST")
    client.send(data(1, b"a little"))
    server.expect(DATA, 1)
    server.respond(1, b"enough")
    server.send(rst_stream(1, frames.NO_ERROR))
    answer = client.answer(1)
    assert (answer.status, answer.body) == (200, b"enough")
    client.send(data(1, b"more"))
    client.sync()
    assert not client.goaways
    assert not [one for one in client.got(frames.RST_STREAM, 1) if one.code != frames.NO_ERROR]


def test_8_1_both_directions_at_once(play: Play) -> None:
    """A stream of messages: each goes to and fro before the next one, nothing waits for an end."""
    client, server, _ = play.start(method=b"POST")
    server.send(HEAD)
    client.head(1)
    for number in range(20):
        client.send(data(1, b"ping %d" % number))
        server.expect(DATA, 1)
        server.send(data(1, b"pong %d" % number))
        client.expect(DATA, 1)
    client.send(data(1, b"", END_STREAM))
    while not server.streams[1].ended:
        server.expect(DATA, 1)
    server.send(headers(1, block((b"grpc-status", b"0"))))
    answer = client.answer(1)
    assert answer.body.endswith(b"pong 19")
    assert answer.trailers == [(b"grpc-status", b"0")]


def test_6_7_the_servers_ping_is_answered(play: Play) -> None:
    _, server, _ = play.start()
    server.send(ping(b"\0\1\2\3\4\5\6\7"))
    answer = server.expect(frames.PING, flags=frames.ACK)
    assert answer.payload == b"\0\1\2\3\4\5\6\7"


def test_3_4_what_the_sidecar_says_first(play: Play) -> None:
    _, server, _ = play.start()
    assert server.frames[0].kind == frames.SETTINGS
    assert server.frames[0].settings.get(frames.ENABLE_PUSH) == 0
    server.expect(frames.SETTINGS, flags=frames.ACK)


def test_5_4_2_a_client_that_leaves_cancels_its_streams_only(play: Play) -> None:
    client, server, lane = play.start()
    other = play.client()
    lane.ask(other, 1)
    assert server.request() == 3
    client.close()
    assert server.expect(frames.RST_STREAM).stream == 1
    server.respond(3, b"still here")
    assert other.answer(1).body == b"still here"


# ---- gRPC's HTTP/2 interop cases (grpc/doc/http2-interop-test-descriptions.md)


def test_grpc_goaway(play: Play) -> None:
    """The call under way ends well, the next one comes on a new connection."""
    client, server, lane = play.start(*GRPC)
    server.send(goaway(1), GRPC_HEAD, data(1, b"\0\0\0\0\1x"), headers(1, block((b"grpc-status", b"0"))))
    assert client.answer(1).trailers == [(b"grpc-status", b"0")]
    client.send(headers(3, request(b"POST", lane.path, *GRPC)))
    second = lane.accept()
    second.request()
    second.send(headers(1, response(b"200", (b"content-type", b"application/grpc"), (b"grpc-status", b"0"))))
    assert client.answer(3).get(b"grpc-status") == b"0"


@pytest.mark.parametrize(
    "sent",
    [GRPC_HEAD, GRPC_HEAD + data(1, b"\0\0\0\0\5ab"), GRPC_HEAD + data(1, b"\0\0\0\0\2ab")],
    ids=["rst_after_header", "rst_during_data", "rst_after_data"],
)
def test_grpc_resets(play: Play, sent: bytes) -> None:
    """The call fails for the client, and only the call."""
    client, server, lane = play.start(*GRPC)
    server.send(sent)
    client.head(1)
    server.send(rst_stream(1, frames.NO_ERROR))
    answer = client.answer(1)
    status = dict(answer.trailers).get(b"grpc-status")
    assert answer.reset is not None or status not in (None, b"0"), "looks whole"
    client.send(headers(3, request(b"POST", lane.path, *GRPC)))
    assert server.request() == 3


def test_grpc_a_reset_before_the_head_is_a_status(play: Play) -> None:
    client, server, _ = play.start(*GRPC)
    server.send(rst_stream(1, frames.INTERNAL_ERROR))
    answer = client.answer(1)
    assert answer.status == 200
    assert answer.get(b"content-type") == b"application/grpc"
    assert answer.get(b"grpc-status") in (b"13", b"14")


def test_grpc_ping(play: Play) -> None:
    client, server, _ = play.start(*GRPC)
    parts = [GRPC_HEAD, data(1, b"\0\0\0\0\2"), data(1, b"ab"), headers(1, block((b"grpc-status", b"0")))]
    for number, part in enumerate(parts):
        server.send(ping(b"%8d" % number), part, ping(b"%8d" % (number + 100)))
    assert client.answer(1).body == b"\0\0\0\0\2ab"
    server.sync()
    assert len([one for one in server.got(frames.PING) if one.flags & frames.ACK]) == 9


@pytest.mark.parametrize("pad", [None, 0, 1, 5, 255])
def test_grpc_data_frame_padding(play: Play, pad: int | None) -> None:
    """Padding counts on the windows, and they are given back."""
    client, server, _ = play.start(*GRPC)
    server.sync()
    stream = server.settings.get(INITIAL_WINDOW_SIZE, 65_535)
    connection = 65_535 + sum(one.number for one in server.got(frames.WINDOW_UPDATE, 0))
    client.send(window_update(0, 1 << 24), window_update(1, 1 << 24))
    server.send(GRPC_HEAD)
    message = b"\0\0\0\x61\xa8" + b"m" * 25_000
    whole = message * 20
    size = 200 if pad else 10_000
    cost = 0 if pad is None else 1 + pad
    seen = len(server.frames)
    for at in range(0, len(whole), size):
        part = whole[at : at + size]
        while min(stream, connection) < len(part) + cost:
            server.expect(frames.WINDOW_UPDATE)
            for one in server.frames[seen:]:
                if one.kind == frames.WINDOW_UPDATE:
                    stream, connection = (
                        (stream + one.number, connection) if one.stream else (stream, connection + one.number)
                    )
            seen = len(server.frames)
        server.send(data(1, part, pad=pad))
        stream, connection = stream - len(part) - cost, connection - len(part) - cost
    server.send(headers(1, block((b"grpc-status", b"0"))))
    answer = client.answer(1, 10)
    assert answer.body == whole
    assert answer.trailers == [(b"grpc-status", b"0")]
