"""RFC 9113 §8.5 and RFC 8441: CONNECT, and WebSocket over it, from an HTTP/2 client."""

from __future__ import annotations

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.case import outcome
from tests.conformance.h2.frames import (
    ENABLE_CONNECT_PROTOCOL,
    END_HEADERS,
    END_STREAM,
    block,
    data,
    headers,
    request,
    response,
    settings,
)
from tests.conformance.h2.peer import Client, Server
from tests.conformance.h2.stage import Play

REFUSED = ("RST_STREAM PROTOCOL_ERROR", "400")
OFFER = settings((ENABLE_CONNECT_PROTOCOL, 1))


def websocket(path: bytes, *more: frames.Field) -> bytes:
    """An extended CONNECT."""
    first = (
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"app"),
    )
    return block(*first, (b"sec-websocket-version", b"13"), *more)


def tunnel(play: Play) -> tuple[Client, Server]:
    """A WebSocket through the sidecar, to an upstream of HTTP/2."""
    lane, client = play.lane(), play.client(port=play.stage.connect_port)
    client.send(headers(1, websocket(lane.path), END_HEADERS))
    server = lane.accept(OFFER)
    assert server.request() == 1
    server.send(headers(1, response(), END_HEADERS))
    assert client.head(1).status == 200
    return client, server


def test_8441_3_the_setting_is_sent_where_a_listener_allows_it(play: Play) -> None:
    assert play.client(port=play.stage.connect_port).settings.get(ENABLE_CONNECT_PROTOCOL) == 1
    assert play.client().settings.get(ENABLE_CONNECT_PROTOCOL, 0) == 0


def test_8441_5_websocket_both_ways(play: Play) -> None:
    client, server = tunnel(play)
    fields = dict(server.streams[1].fields)
    assert fields[b":method"] == b"CONNECT"
    assert fields[b":protocol"] == b"websocket"
    assert fields[b":scheme"] == b"http"
    assert fields[b"sec-websocket-version"] == b"13"
    assert not {b"upgrade", b"connection", b"host", b"content-length"} & fields.keys()
    for number in range(5):
        client.send(data(1, b"to %d" % number))
        server.expect(frames.DATA, 1)
        server.send(data(1, b"fro %d" % number))
        client.expect(frames.DATA, 1)
    assert server.streams[1].body == b"to 0to 1to 2to 3to 4"
    client.send(data(1, b"bye", END_STREAM))
    while not server.streams[1].ended:
        server.expect(frames.DATA, 1)
    server.send(data(1, b"bye too", END_STREAM))
    assert client.answer(1).body.endswith(b"bye too")


def test_8441_5_a_refusal_is_an_ordinary_answer(play: Play) -> None:
    lane, client = play.lane(), play.client(port=play.stage.connect_port)
    client.send(headers(1, websocket(lane.path), END_HEADERS))
    server = lane.accept(OFFER)
    server.request()
    server.send(headers(1, response(b"403"), END_HEADERS), data(1, b"no", END_STREAM))
    answer = client.answer(1)
    assert (answer.status, answer.body) == (403, b"no")


def test_8441_5_cancelled_by_the_client(play: Play) -> None:
    client, server = tunnel(play)
    client.send(frames.rst_stream(1, frames.CANCEL))
    assert server.expect(frames.RST_STREAM, 1).code == frames.CANCEL


def test_8441_5_reset_by_the_server(play: Play) -> None:
    client, server = tunnel(play)
    server.send(frames.rst_stream(1, frames.INTERNAL_ERROR))
    assert client.answer(1).reset is not None


def test_8441_4_an_upstream_that_does_not_offer_it(play: Play) -> None:
    """It must not get one (§3)."""
    lane, client = play.lane(), play.client(port=play.stage.connect_port)
    client.send(headers(1, websocket(lane.path), END_HEADERS))
    server = lane.accept()
    assert outcome(client, 1) in ("502", "503", "501", "RST_STREAM REFUSED_STREAM", "RST_STREAM CONNECT_ERROR")
    server.sync()
    assert not server.got(frames.HEADERS)


BAD = {
    "no :scheme": ((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":path", b"/"), (b":authority", b"app")),
    "no :path": ((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":authority", b"app")),
    "no :authority": ((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/")),
    "an empty :protocol": ((b":method", b"CONNECT"), (b":protocol", b""), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app")),
    "CR LF in :protocol": ((b":method", b"CONNECT"), (b":protocol", b"websocket\r\nx: y"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app")),
    "a blank in :protocol": ((b":method", b"CONNECT"), (b":protocol", b"web socket"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app")),
    ":protocol twice": ((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app")),
    "GET with :protocol": ((b":method", b"GET"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app")),
    "upgrade beside it": ((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")),
    "CONNECT with userinfo": ((b":method", b"CONNECT"), (b":authority", b"user@app:80")),
    "CONNECT with a path in :authority": ((b":method", b"CONNECT"), (b":authority", b"app:80/evil")),
    "CONNECT with CR LF in :authority": ((b":method", b"CONNECT"), (b":authority", b"app:80\r\nx: y")),
    "CONNECT without a port": ((b":method", b"CONNECT"), (b":authority", b"app")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_8_5_what_is_no_connect(play: Play, name: str) -> None:
    client = play.client(port=play.stage.connect_port)
    client.send(headers(1, block(*BAD[name]), END_HEADERS))
    assert outcome(client, 1) in REFUSED
    assert not play.stage.http1.take()


def test_8_5_connect_is_a_tunnel(play: Play) -> None:
    """To an upstream of HTTP/1.1: the bytes behind the route's connect_config go straight there."""
    client = play.client(port=play.stage.connect_port)
    client.send(headers(1, block((b":method", b"CONNECT"), (b":authority", b"app:80")), END_HEADERS))
    assert client.head(1).status == 200
    client.send(data(1, b"GET /inside HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"))
    client.expect(frames.DATA, 1)
    assert client.streams[1].body.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [seen.target for seen in play.stage.http1.take()] == [b"/inside"]


@pytest.mark.parametrize("end", [END_STREAM | END_HEADERS, END_HEADERS], ids=["end", "no_end"])
def test_8_5_only_data_in_a_tunnel(play: Play, end: int) -> None:
    """HEADERS there is a stream error."""
    client, _ = tunnel(play)
    client.send(headers(1, block((b"x-t", b"1")), end))
    assert outcome(client, 1) == "RST_STREAM PROTOCOL_ERROR"


@pytest.mark.parametrize("end", [END_STREAM | END_HEADERS, END_HEADERS], ids=["end", "no_end"])
def test_8_5_only_data_in_a_tunnel_from_the_server(play: Play, end: int) -> None:
    client, server = tunnel(play)
    server.send(headers(1, block((b"x-t", b"1")), end))
    assert server.expect(frames.RST_STREAM, 1).code == frames.PROTOCOL_ERROR
    assert client.answer(1).reset is not None


def test_6_9_a_tunnel_has_windows_too(play: Play) -> None:
    lane, client = play.lane(), play.client((frames.INITIAL_WINDOW_SIZE, 5), port=play.stage.connect_port)
    client.send(headers(1, websocket(lane.path), END_HEADERS))
    server = lane.accept(OFFER)
    server.request()
    server.send(headers(1, response(), END_HEADERS), data(1, b"0123456789"))
    client.expect(frames.DATA, 1)
    client.sync()
    assert client.streams[1].body == b"01234"
    client.send(frames.window_update(1, 5))
    client.expect(frames.DATA, 1)
    assert client.streams[1].body == b"0123456789"


def test_8_5_other_streams_go_on_beside_a_tunnel(play: Play) -> None:
    client, _ = tunnel(play)
    client.send(headers(3, request()))
    assert client.answer(3).status == 200
