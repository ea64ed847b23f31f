"""Streams of a real worker at the edges of their lives: what ends late, early, or not as usual."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from proxy.config.http2 import Http2Options
from proxy.config.route import RetryPolicy
from tests.conformance.h2 import frames
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, block, data, headers, request, rst_stream
from tests.conformance.h2.peer import Client, Peer, Server, open_socket
from tests.support.worker import Worker, free_port, snapshot, upstream, worker


@dataclass
class Scene:
    """A worker whose clients and upstream (HTTP/2) a test plays."""

    worker: Worker
    listening: socket.socket
    peers: list[Peer] = field(default_factory=list)

    def client(self, *pairs: tuple[int, int]) -> Client:
        """A new connection to the worker."""
        client = Client(open_socket(self.worker.port), *pairs)
        self.peers.append(client)
        return client

    def accept(self, first: bytes | None = None) -> Server:
        """The worker's next connection to its upstream; `first` is what we say first."""
        server = Server(self.listening.accept()[0], first)
        self.peers.append(server)
        return server


@contextlib.asynccontextmanager
async def scene(cluster: dict[str, Any] | None = None, port: int = 0, **given: Any) -> AsyncIterator[Scene]:
    """A worker in front of `port`, or else of the scene's own upstream; the rest is the snapshot's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(3)
        async with worker() as process:
            found = Scene(process, listening)
            at = port or listening.getsockname()[1]
            assert (
                await process.apply(
                    snapshot(process.port, at, cluster={"protocol": "HTTP2", **(cluster or {})}, **given)
                )
                is None
            )
            try:
                yield found
            finally:
                for peer in found.peers:
                    peer.close()


async def test_the_end_of_a_request_with_content_length_0_comes_later() -> None:
    async with scene() as stage:
        client = stage.client()
        client.send(headers(1, request(b"POST", b"/", (b"content-length", b"0")), END_HEADERS))
        server = stage.accept()
        server.request()
        client.sync()
        client.send(data(1, b"", END_STREAM))
        server.expect(frames.DATA, 1, END_STREAM)
        server.respond(1, b"ok")
        assert client.answer(1).body == b"ok"


async def test_a_connection_is_idle_when_its_streams_have_ended_however_they_did() -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000)

    http = {"idle_timeout": 0.5, "http2": Http2Options(allow_connect=True)}
    async with upstream(app) as port, scene({"protocol": "HTTP1"}, port, http=http) as stage:
        refused, full = stage.client(), stage.client((frames.INITIAL_WINDOW_SIZE, 10))
        refused.send(headers(1, block((b":method", b"CONNECT"), (b":authority", b"a:80")), END_HEADERS))
        full.send(headers(1, request()))
        await asyncio.to_thread(full.expect, frames.DATA, 1)
        await asyncio.sleep(0.7)  # longer than the idle timeout: what is to come of the stream is not looked at then
        full.send(rst_stream(1))
        assert refused.answer(1).status == 404
        assert refused.error() == full.error() == frames.NO_ERROR


async def test_an_upstream_connection_that_is_too_old_closes_with_its_last_stream() -> None:
    async with scene({"max_connection_duration": 0.2}) as stage:
        client = stage.client()
        client.send(headers(1, request()))
        server = stage.accept()
        server.request()
        time.sleep(0.4)
        server.respond(1, b"ok")
        assert client.answer(1).body == b"ok"
        assert server.error() == frames.NO_ERROR


async def test_each_retry_is_a_connection_of_its_own() -> None:
    retry = RetryPolicy(frozenset(("connect-failure",)), 3)
    async with scene(port=free_port(), action={"retry": retry}) as stage:
        client = stage.client()
        client.send(headers(1, request()))
        assert client.answer(1).status == 503
        assert await stage.worker.count("upstream_cx_connect_fail_total") == 4


async def test_calls_that_are_answered_early_and_reset_by_their_clients_are_no_flood() -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def play(client: Client) -> None:
        for first in range(1, 2 * 1500, 2 * 50):
            numbers = range(first, first + 2 * 50, 2)
            client.send(*(headers(number, request(b"POST"), END_HEADERS) for number in numbers))
            for number in numbers:
                assert client.answer(number).status == 200
            client.send(*(rst_stream(number) for number in numbers))
        client.sync()
        assert not client.goaways

    async with upstream(app) as port, scene({"protocol": "HTTP1"}, port) as stage:
        await asyncio.to_thread(play, stage.client())


async def test_one_of_the_protocols_that_a_client_asks_for_goes_over_http2() -> None:
    async with scene(action={"upgrades": (("websocket", True), ("chat", True))}) as stage:
        with open_socket(stage.worker.port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chat, websocket\r\n\r\n")
            server = stage.accept(frames.settings((frames.ENABLE_CONNECT_PROTOCOL, 1)))
            server.request()
            assert server.streams[1].get(b":protocol") == b"chat"
            server.send(headers(1, frames.response(b"200"), END_HEADERS))
            assert client.recv(1000).startswith(b"HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: chat\r\n")


async def test_requests_keep_away_from_a_connection_whose_window_is_full_of_what_nobody_reads() -> None:
    options = Http2Options(initial_stream_window_size=65_536, initial_connection_window_size=131_072)
    async with scene({"http2": options}) as stage:
        deaf = stage.client((frames.INITIAL_WINDOW_SIZE, 0))
        deaf.send(headers(1, request()), headers(3, request()))
        server = stage.accept()
        for number in (server.request(), server.request()):
            server.send(headers(number, frames.response(), END_HEADERS), data(number, b"x" * 16_384))
            server.sync()
            server.send(*[data(number, b"x" * 16_384)] * 3)
        server.sync()
        other = stage.client()
        other.send(headers(1, request()))
        second = stage.accept()
        second.request()
        second.respond(1, b"ok")
        assert other.answer(1).body == b"ok"
        deaf.close()
        server.expect(frames.RST_STREAM, 1)
        server.expect(frames.RST_STREAM, 3)


async def test_a_tunnel_whose_client_has_gone_delivers_what_it_had_said() -> None:
    """Its end waits behind a window of ten bytes, and no reset overtakes it."""
    http = {"http2": Http2Options(allow_connect=True)}
    asked = block(
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"a"),
    )
    async with scene(action={"upgrades": (("websocket", True),)}, http=http) as stage:

        def play() -> None:
            client = stage.client()
            client.send(headers(1, asked, END_HEADERS))
            server = stage.accept(
                frames.settings((frames.ENABLE_CONNECT_PROTOCOL, 1), (frames.INITIAL_WINDOW_SIZE, 10))
            )
            number = server.request()
            server.send(headers(number, frames.response(b"200"), END_HEADERS))
            client.head(1)
            client.send(data(1, b"x" * 1000, END_STREAM))
            client.sync()
            client.close()
            server.send(frames.window_update(number, 5000))
            answer = server.answer(number)
            assert len(answer.body) == 1000
            assert answer.ended
            assert answer.reset is None
            server.send(headers(number, block((b"x-end", b"1"))))

        await asyncio.to_thread(play)
        await stage.worker.at_rest()
