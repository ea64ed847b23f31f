"""RFC 9113 §3 towards clients: how HTTP/2 begins beside HTTP/1.1 on one port, and over TLS."""

from __future__ import annotations

import contextlib

import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.case import ended
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, PREFACE, data, headers, ping, request, settings
from tests.conformance.h2.peer import Peer
from tests.conformance.h2.stage import MAX_STREAMS, Play

GET = headers(1, request())
HTTP1 = b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"


def read_all(peer: Peer) -> bytes:
    """All bytes up to the end."""
    got = b""
    peer.sock.settimeout(3)
    with contextlib.suppress(ConnectionError):
        while more := peer.sock.recv(65_536):
            got += more
    return got


def test_3_4_the_server_begins_with_settings(play: Play) -> None:
    client = play.raw()
    client.send(PREFACE, settings())
    client.expect(frames.SETTINGS)
    first = client.frames[0]
    assert (first.kind, first.flags, first.stream) == (frames.SETTINGS, 0, 0)
    assert first.settings[frames.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
    assert first.settings.get(frames.ENABLE_PUSH, 0) == 0
    client.expect(frames.SETTINGS, flags=frames.ACK)


def test_3_4_a_request_with_the_preface(play: Play) -> None:
    """Prior knowledge (§3.3): the client need not wait for the server's SETTINGS."""
    client = play.raw()
    client.send(PREFACE, settings(), GET)
    assert client.answer(1).status == 200


@pytest.mark.parametrize("split", [1, 3, 15, 16, 23, 24, 25, 32])
def test_3_4_a_preface_in_segments(play: Play, split: int) -> None:
    client = play.raw()
    whole = PREFACE + settings() + GET
    if split == 1:
        for octet in whole:
            client.send(bytes([octet]))
    else:
        client.send(whole[:split])
        client.sock.settimeout(0.02)
        with contextlib.suppress(TimeoutError):
            client.sock.recv(1, 2)  # MSG_PEEK: gives the first segment time to be read alone
        client.send(whole[split:])
    assert client.answer(1).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX" + settings(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings(),
        b"PRI * HTTP/2.0\r\n\r\n" + settings() + GET,
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n" + settings(),
        b"pri * http/2.0\r\n\r\nsm\r\n\r\n" + settings(),
        b"INVALID CONNECTION PREFACE\r\n\r\n" + settings(),
        settings() + GET,
    ],
)
def test_3_4_no_preface(play: Play, sent: bytes) -> None:
    """GOAWAY may be left out; HTTP/1.1 may answer 400. But it ends, and nothing reaches the upstream."""
    client = play.raw()
    client.send(sent)
    got = read_all(client)
    assert b" 200" not in got.partition(b"\r\n")[0]
    assert not play.stage.http1.take()


@pytest.mark.parametrize(
    ("first", "what"),
    [(ping(), "PING"), (GET, "HEADERS"), (settings(flags=frames.ACK), "an acknowledgement"), (frames.window_update(0, 1), "WINDOW_UPDATE"), (data(1, b"x"), "DATA"), (frames.frame(0x33, 0, 0), "an unknown frame")],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_3_4_the_first_frame_is_settings(play: Play, first: bytes, what: str) -> None:
    client = play.raw()
    client.send(PREFACE, first, settings())
    assert ended(client) == "GOAWAY PROTOCOL_ERROR"


def test_3_4_a_preface_and_nothing_more(play: Play) -> None:
    client = play.raw()
    client.send(PREFACE)
    client.expect(frames.SETTINGS)
    client.sock.shutdown(1)
    client.error()
    assert client.closed


def test_3_http1_on_the_same_port(play: Play) -> None:
    client = play.raw()
    client.send(HTTP1)
    assert read_all(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", [b"PRI", b"PROPFIND", b"P", b"PRIVATE"])
def test_3_http1_methods_that_begin_like_the_preface(play: Play, method: bytes) -> None:
    client = play.raw()
    client.send(HTTP1.replace(b"GET", method))
    status = read_all(client).split(b" ")[1]
    if method != b"PRI":
        assert status == b"200"
        assert [seen.method for seen in play.stage.http1.take()] == [method]


def test_3_1_upgrade_h2c_is_ignored(play: Play) -> None:
    """RFC 9113 has no upgrade from HTTP/1.1 any more; the request is answered as it is."""
    client = play.raw()
    client.send(
        b"GET / HTTP/1.1\r\nhost: app\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAMAAABkAAQAAP__\r\n\r\nGET /next HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"
    )
    got = read_all(client)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.count(b"HTTP/1.1 200 ") == 2
    first, second = play.stage.http1.take()
    assert first.get(b"http2-settings") is None
    assert (first.get(b"upgrade"), second.target) == (None, b"/next")


# ---- §3.2, §9.2: TLS


def over_tls(play: Play, *protocols: str) -> tuple[Peer, str | None]:
    """A peer behind the handshake, and what ALPN chose."""
    sock = play.stage.tls(list(protocols))
    return play.peer(sock), sock.selected_alpn_protocol()


@pytest.mark.parametrize("offered", [["h2"], ["h2", "http/1.1"], ["http/1.1", "h2"], ["spdy/1", "h2"]])
def test_3_2_alpn_chooses_h2(play: Play, offered: list[str]) -> None:
    client, chosen = over_tls(play, *offered)
    assert chosen == "h2"
    client.send(PREFACE, settings(), GET)
    assert client.answer(1).status == 200


def test_3_2_alpn_chooses_http1(play: Play) -> None:
    client, chosen = over_tls(play, "http/1.1")
    assert chosen == "http/1.1"
    client.send(HTTP1)
    assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_3_2_no_alpn_is_http1(play: Play) -> None:
    client, chosen = over_tls(play)
    assert chosen is None
    client.send(HTTP1)
    assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_3_2_no_alpn_and_a_preface(play: Play) -> None:
    """Prior knowledge over TLS: AUTO looks at the bytes."""
    client, _ = over_tls(play)
    client.send(PREFACE, settings(), GET)
    assert client.answer(1).status == 200


def test_3_2_h2_was_chosen_and_http1_comes(play: Play) -> None:
    client, _ = over_tls(play, "h2")
    client.send(HTTP1)
    got = read_all(client)
    assert b" 200 " not in got
    assert not play.stage.http1.take()


def test_3_2_h2_over_tls_in_full(play: Play) -> None:
    client, _ = over_tls(play, "h2")
    client.send(PREFACE, settings((frames.INITIAL_WINDOW_SIZE, 1 << 20)), frames.window_update(0, 1 << 20))
    client.send(
        headers(1, request(b"POST", b"/h2/"), END_HEADERS), data(1, b"y" * 16_000), data(1, b"z" * 16_000, END_STREAM)
    )
    assert client.answer(1).body == b"y" * 16_000 + b"z" * 16_000
    client.send(headers(3, request(b"GET", b"/bytes/500000")))
    assert len(client.answer(3).body) == 500_000
    client.send(frames.frame(frames.PING, 0, 1, b"8 octets"))
    assert ended(client) == "GOAWAY PROTOCOL_ERROR"
