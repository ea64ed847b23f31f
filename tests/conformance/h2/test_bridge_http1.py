"""HTTP/1.1 clients before an upstream of HTTP/2 (RFC 9113 §8.2, §8.3): each side sees its own protocol in good form."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, block, data, headers, response
from tests.conformance.h2.peer import SECONDS, Peer, Server
from tests.conformance.h2.stage import Lane, Play

CLOSE = b"connection: close\r\n"


def ask(play: Play, sent: bytes) -> tuple[Peer, Server, Lane]:
    """A client that sends this, with PATH for the lane's, and the server up to the request's head."""
    lane, client = play.lane(), play.raw()
    client.send(sent.replace(b"PATH", lane.path))
    server = lane.accept()
    assert server.request() == 1
    return client, server, lane


def rest(client: Peer) -> bytes:
    """All up to the end."""
    got = b""
    client.sock.settimeout(3)
    with contextlib.suppress(ConnectionError):
        while more := client.sock.recv(65_536):
            got += more
    return got


def finish(server: Server) -> None:
    """Wait for the end of the request."""
    until = time.monotonic() + SECONDS
    while not server.streams[1].ended:
        assert server.read(until) is not None, "closed"


def test_8_3_1_the_request(play: Play) -> None:
    client, server, lane = ask(
        play,
        b"GET PATHa?b=c HTTP/1.1\r\nHost: App:80\r\nX-Upper: Value \r\nx-empty:\r\nCookie: a=b\r\nAccept: */*\r\nAccept: x/y\r\n" + CLOSE + b"\r\n",
    )  # fmt: skip
    fields = server.streams[1].fields
    pseudo = [pair for pair in fields if pair[0].startswith(b":")]
    assert fields[: len(pseudo)] == pseudo
    assert dict(pseudo) == {
        b":method": b"GET",
        b":scheme": b"http",
        b":authority": b"App:80",
        b":path": lane.path + b"a?b=c",
    }
    plain = [pair for pair in fields if pair[0] in (b"x-upper", b"x-empty", b"cookie", b"accept")]
    assert plain == [
        (b"x-upper", b"Value"),
        (b"x-empty", b""),
        (b"cookie", b"a=b"),
        (b"accept", b"*/*"),
        (b"accept", b"x/y"),
    ]
    assert not {b"host", b"connection"} & {name for name, _ in fields}
    assert server.streams[1].ended
    server.respond(1, b"hello", (b"x-answer", b"1"))
    got = rest(client)
    assert got.startswith(b"HTTP/1.1 200")
    assert b"x-answer: 1\r\n" in got
    assert got.endswith(b"5\r\nhello\r\n0\r\n\r\n")


def test_8_2_2_what_speaks_of_the_connection_stays_behind(play: Play) -> None:
    _, server, _ = ask(
        play,
        b"GET PATH HTTP/1.1\r\nHost: app\r\nConnection: keep-alive, x-hop, te, upgrade, http2-settings\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nX-Stays: 1\r\n\r\n",
    )  # fmt: skip
    fields = dict(server.streams[1].fields)
    assert fields.get(b"te") == b"trailers"
    assert fields[b"x-stays"] == b"1"
    gone = {
        b"connection",
        b"x-hop",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"http2-settings",
        b"transfer-encoding",
    }
    assert not gone & fields.keys()


def test_8_1_a_chunked_body_and_its_trailers(play: Play) -> None:
    client, server, _ = ask(
        play, b"POST PATH HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n" + CLOSE + b"\r\n"
    )
    client.send(b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 42\r\n\r\n")
    finish(server)
    assert server.streams[1].body == b"hello world"
    assert server.streams[1].trailers == [(b"x-sum", b"42")]
    assert server.streams[1].get(b"content-length") is None
    server.respond(1)
    assert rest(client).startswith(b"HTTP/1.1 200")


def test_8_1_1_content_length_goes_on(play: Play) -> None:
    client, server, _ = ask(play, b"PUT PATH HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n" + CLOSE + b"\r\nhe")
    assert server.streams[1].get(b"content-length") == b"5"
    client.send(b"llo")
    finish(server)
    assert server.streams[1].body == b"hello"
    server.respond(1, b"ok", (b"content-length", b"2"))
    got = rest(client)
    assert b"content-length: 2\r\n" in got
    assert got.endswith(b"\r\n\r\nok")


def test_8_1_trailers_of_the_answer(play: Play) -> None:
    client, server, _ = ask(play, b"GET PATH HTTP/1.1\r\nHost: app\r\nTE: trailers\r\nConnection: te, close\r\n\r\n")
    server.send(headers(1, response(), END_HEADERS), data(1, b"abc"), headers(1, block((b"grpc-status", b"0"))))
    assert rest(client).endswith(b"3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n")


def test_8_1_an_informational_answer(play: Play) -> None:
    client, server, _ = ask(play, b"GET PATH HTTP/1.1\r\nHost: app\r\n" + CLOSE + b"\r\n")
    server.send(headers(1, response(b"103", (b"link", b"</x>")), END_HEADERS))
    server.respond(1, b"", (b"content-length", b"0"))
    got = rest(client)
    assert got.startswith(b"HTTP/1.1 103")
    assert got.partition(b"\r\n\r\n")[0].endswith(b"\r\nlink: </x>")
    assert got.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        (data(1, b"half") + frames.rst_stream(1, frames.INTERNAL_ERROR), False),
        (data(1, b"half") + frames.goaway(0), False),
        (data(1, b"half") + data(1, b"", END_STREAM), True),
    ],
    ids=["reset", "goaway", "end"],
)
def test_8_1_an_answer_that_is_cut_off_does_not_look_whole(play: Play, sent: bytes, whole: bool) -> None:
    client, server, _ = ask(play, b"GET PATH HTTP/1.1\r\nHost: app\r\n" + CLOSE + b"\r\n")
    server.send(headers(1, response(), END_HEADERS), sent)
    got = rest(client)
    assert got.endswith(b"0\r\n\r\n") == whole or b" 50" in got[:15]
    assert (b"half" in got) >= whole


def test_8_1_1_an_answer_shorter_than_its_content_length(play: Play) -> None:
    client, server, _ = ask(play, b"GET PATH HTTP/1.1\r\nHost: app\r\n\r\n")
    server.send(headers(1, response(b"200", (b"content-length", b"10")), END_HEADERS), data(1, b"half"))
    server.sync()
    server.send(data(1, b"", END_STREAM))
    got = rest(client)
    assert not got.endswith(b"x" * 10)
    assert got.endswith(b"half")
    assert server.got(frames.RST_STREAM, 1) or server.expect(frames.RST_STREAM, 1)


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_8_1_1_answers_without_content(play: Play, status: bytes) -> None:
    client, server, lane = ask(play, b"GET PATH HTTP/1.1\r\nHost: app\r\n\r\n")
    server.send(headers(1, response(status)))
    client.send(b"GET %bnext HTTP/1.1\r\nHost: app\r\n" % lane.path + CLOSE + b"\r\n")
    assert server.request() == 3
    server.respond(3, b"", (b"content-length", b"0"))
    first, _, second = rest(client).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 " + status)
    assert b"transfer-encoding" not in first
    assert second.startswith(b"HTTP/1.1 200")


def test_8_1_1_head(play: Play) -> None:
    client, server, _ = ask(play, b"HEAD PATH HTTP/1.1\r\nHost: app\r\n" + CLOSE + b"\r\n")
    server.send(headers(1, response(b"200", (b"content-length", b"1000"))))
    got = rest(client)
    assert b"content-length: 1000\r\n" in got
    assert got.endswith(b"\r\n\r\n")


def test_8_7_a_client_that_leaves_cancels_the_stream(play: Play) -> None:
    client, server, _ = ask(play, b"POST PATH HTTP/1.1\r\nHost: app\r\nContent-Length: 100\r\n\r\nhalf")
    client.close()
    assert server.expect(frames.RST_STREAM, 1).code == frames.CANCEL
    assert not server.streams[1].ended


def test_8_7_a_body_that_breaks_off_never_ends(play: Play) -> None:
    """Half a chunk: the request that the server has must not look whole."""
    client, server, _ = ask(play, b"POST PATH HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    client.send(b"lo\r\nnot a size\r\n")
    assert server.expect(frames.RST_STREAM, 1)
    assert not server.streams[1].ended
    assert b" 400" in rest(client).partition(b"\r\n")[0]


def test_8_7_refused_stream_is_sent_again(play: Play) -> None:
    client, server, _ = ask(play, b"GET PATH HTTP/1.1\r\nHost: app\r\n" + CLOSE + b"\r\n")
    server.send(frames.rst_stream(1, frames.REFUSED_STREAM))
    assert server.request() == 3
    server.respond(3, b"again")
    assert b"again" in rest(client)


def test_8_1_pipelined_requests_are_answered_in_order(play: Play) -> None:
    lane, client = play.lane(), play.raw()
    one = b"GET %b%%d HTTP/1.1\r\nHost: app\r\n\r\n" % lane.path
    client.send(b"".join(one % number for number in range(3)))
    server = lane.accept()
    for number in range(3):
        stream = server.request()
        assert server.streams[stream].get(b":path") == lane.path + b"%d" % number
        server.respond(stream, b"%d" % number, (b"content-length", b"1"))
    got = b""
    while got.count(b"\r\n\r\n") < 3 or not got.endswith(b"\r\n\r\n2"):
        more = client.sock.recv(65_536)
        assert more, got
        got += more
    assert [part[:1] for part in got.split(b"\r\n\r\n")[1:]] == [b"0", b"1", b"2"]
