"""RFC 9113 §5 to §8 towards upstreams: retries that are safe, GOAWAY, and how many streams a connection gets."""

from __future__ import annotations

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.case import outcome
from tests.conformance.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    MAX_CONCURRENT_STREAMS,
    data,
    goaway,
    headers,
    response,
    rst_stream,
    settings,
)
from tests.conformance.h2.stage import Play

HEAD = headers(1, response(), END_HEADERS)
FAILED = ("502", "503")
CUT = ("RST_STREAM INTERNAL_ERROR", "RST_STREAM PROTOCOL_ERROR", "RST_STREAM CANCEL")


# ---- §8.7: what is safe to send again


def test_8_7_refused_stream_is_sent_again(play: Play) -> None:
    client, server, lane = play.start()
    server.send(rst_stream(1, frames.REFUSED_STREAM))
    again = server.request()
    assert again == 3
    server.respond(again, b"at last")
    assert client.answer(1).body == b"at last"
    assert lane.silent()


def test_8_7_refused_stream_is_sent_again_with_its_body(play: Play) -> None:
    client, server, _ = play.start(method=b"POST")
    client.send(data(1, b"the body", END_STREAM))
    while not server.streams[1].ended:
        server.expect(DATA, 1)
    server.send(rst_stream(1, frames.REFUSED_STREAM))
    again = server.request(whole=True)
    assert server.streams[again].body == b"the body"
    server.respond(again)
    assert client.answer(1).status == 200


def test_8_7_refused_again_and_again_is_given_up(play: Play) -> None:
    """It is sent again once whatever the route says, and as often as the route's retries allow."""
    client, server, _ = play.start()
    for stream in (1, 3, 5):
        server.send(rst_stream(stream, frames.REFUSED_STREAM))
        assert server.request() == stream + 2
    server.send(rst_stream(7, frames.REFUSED_STREAM))
    assert outcome(client, 1) in FAILED


@pytest.mark.parametrize(
    "code",
    [frames.NO_ERROR, frames.PROTOCOL_ERROR, frames.INTERNAL_ERROR, frames.CANCEL, frames.ENHANCE_YOUR_CALM, 0xBAD],
)
def test_8_7_other_resets_are_not_sent_again(play: Play, code: int) -> None:
    """It may have been processed."""
    client, server, lane = play.start()
    server.send(rst_stream(1, code))
    assert outcome(client, 1) in FAILED
    server.sync()
    assert len(server.got(frames.HEADERS)) == 1
    assert lane.silent()


def test_6_8_goaway_below_our_stream_is_sent_again_elsewhere(play: Play) -> None:
    client, server, lane = play.start()
    server.send(goaway(0))
    second = lane.accept()
    assert second.request() == 1
    second.respond(1, b"here")
    assert client.answer(1).body == b"here"
    server.error()
    assert server.closed


def test_6_8_goaway_with_an_error_below_our_stream(play: Play) -> None:
    client, server, lane = play.start()
    server.send(goaway(0, frames.ENHANCE_YOUR_CALM, b"too_many_pings"))
    second = lane.accept()
    second.respond(second.request())
    assert client.answer(1).status == 200


def test_6_8_goaway_above_our_stream_lets_it_end(play: Play) -> None:
    client, server, lane = play.start()
    server.send(goaway(1))
    lane.ask(client, 3)
    second = lane.accept()
    second.respond(second.request(), b"second")
    assert client.answer(3).body == b"second"
    server.respond(1, b"first")
    assert client.answer(1).body == b"first"
    server.error()
    assert server.closed


def test_6_8_goaway_between_two_streams(play: Play) -> None:
    client, server, lane = play.start()
    lane.ask(client, 3)
    assert server.request() == 3
    server.send(goaway(1))
    second = lane.accept()
    second.respond(second.request(), b"again")
    assert client.answer(3).body == b"again"
    server.respond(1, b"first")
    assert client.answer(1).body == b"first"


def test_6_8_graceful_in_two_steps(play: Play) -> None:
    client, server, lane = play.start()
    server.send(goaway(frames.MAX_WINDOW))
    lane.ask(client, 3)
    second = lane.accept()
    second.respond(second.request())
    assert client.answer(3).status == 200
    server.send(goaway(1))
    server.respond(1, b"to the end")
    assert client.answer(1).body == b"to the end"


def test_6_8_goaway_while_the_answer_comes(play: Play) -> None:
    client, server, _ = play.start()
    server.send(HEAD, data(1, b"half "), goaway(1), data(1, b"and half", END_STREAM))
    assert client.answer(1).body == b"half and half"


def test_6_8_goaway_and_close_before_the_answer(play: Play) -> None:
    """Ours may have been processed, so it is not sent again."""
    client, server, lane = play.start()
    server.send(goaway(1))
    server.close()
    assert outcome(client, 1) in FAILED
    assert lane.silent()


@pytest.mark.parametrize("head", [b"", HEAD, HEAD + data(1, b"half")], ids=["nothing", "head", "some_of_the_body"])
def test_5_4_the_connection_is_lost(play: Play, head: bytes) -> None:
    client, server, _ = play.start()
    server.send(head)
    if head:
        client.head(1)
    server.close()
    got = outcome(client, 1)
    assert got in (CUT if head else FAILED)


def test_9_1_an_idle_connection_that_was_closed_is_not_used(play: Play) -> None:
    client, server, lane = play.start()
    server.respond(1)
    assert client.answer(1).status == 200
    server.send(goaway(1))
    server.error()
    lane.ask(client, 3)
    second = lane.accept()
    second.respond(second.request())
    assert client.answer(3).status == 200


# ---- §5.1.2 and §9.1: streams and connections


def test_9_1_two_clients_share_a_connection(play: Play) -> None:
    client, server, lane = play.start()
    other = play.client()
    lane.ask(other, 1)
    assert server.request() == 3
    server.respond(3, b"yours")
    assert other.answer(1).body == b"yours"
    server.respond(1, b"mine")
    assert client.answer(1).body == b"mine"
    assert lane.silent()


def test_5_1_2_one_stream_at_a_time(play: Play) -> None:
    """What finds no room goes by another connection, or waits; on none is a stream too many once its limit is known."""
    client, server, lane = play.start(first=settings((MAX_CONCURRENT_STREAMS, 1)))
    server.sync()
    lane.ask(client, 3)
    second = lane.accept(settings((MAX_CONCURRENT_STREAMS, 1)))
    assert second.request() == 1
    second.sync()
    lane.ask(client, 5)
    third = lane.accept(settings((MAX_CONCURRENT_STREAMS, 1)))
    assert third.request() == 1
    for number, one in enumerate((server, second, third)):
        one.sync()
        assert len(one.got(frames.HEADERS)) == 1
        one.respond(1, b"%d" % number)
        assert client.answer(1 + 2 * number).body == b"%d" % number
    lane.ask(client, 7)
    client.sync()
    assert lane.silent(), "three connections have room"


def test_5_1_2_a_stream_too_many_is_refused_and_waits(play: Play) -> None:
    """Sent before the limit was known: refused, it is sent again, on whichever connection has room."""
    client, server, lane = play.start()
    lane.ask(client, 3)
    assert server.request() == 3
    server.send(settings((MAX_CONCURRENT_STREAMS, 1)), rst_stream(3, frames.REFUSED_STREAM))
    second = lane.accept()
    second.respond(second.request(), b"there")
    assert client.answer(3).body == b"there"
    server.respond(1, b"here")
    assert client.answer(1).body == b"here"


def test_5_1_2_the_limit_sinks_below_what_is_open(play: Play) -> None:
    client, server, lane = play.start()
    lane.ask(client, 3)
    assert server.request() == 3
    server.send(settings((MAX_CONCURRENT_STREAMS, 1)))
    server.sync()
    server.respond(1)
    server.respond(3)
    assert client.answer(1).status == client.answer(3).status == 200
    lane.ask(client, 5)
    server.respond(server.request())
    assert client.answer(5).status == 200
