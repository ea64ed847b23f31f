"""What an HTTP/2 client may try to use up: the worker's memory and time stay bounded, the connection ends with the right
code, and whoever is on another connection is served meanwhile (RFC 9113 §10.5)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from proxy.config.http2 import Http2Options
from tests.conformance.h2 import frames
from tests.conformance.h2.frames import (
    CANCEL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    PING,
    RST_STREAM,
    continuation,
    data,
    frame,
    headers,
    indexed,
    literal,
    ping,
    priority,
    request,
    rst_stream,
    settings,
    table_size,
    window_update,
)
from tests.support.h2_attacker import attacker, neighbour, target
from tests.support.wait import until

MIB = 1 << 20
MANY = 20_000
"""Of whatever a flood consists of: far more than any limit."""
MEMORY = 24 * MIB
"""What the worker may grow by. A flood in the kernel's buffers and in one read takes some."""


def resets(make: Any, count: int = MANY, batch: int = 100) -> Iterable[bytes]:
    """`count` times what `make` gives for a stream's number, `batch` of them at once."""
    numbers = range(1, 2 * count, 2)
    for start in range(0, count, batch):
        yield b"".join(make(number) for number in numbers[start : start + batch])


BLOCK = request(b"GET", b"/hold")
POST = request(b"POST", b"/hold")
FLOODS: dict[str, Iterable[bytes]] = {
    "rapid reset (CVE-2023-44487)": resets(lambda n: headers(n, BLOCK) + rst_stream(n)),
    "resets that the server makes (CVE-2025-8671), by WINDOW_UPDATE of 0": resets(lambda n: headers(n, BLOCK) + window_update(n, 0)),
    "resets that the server makes, by DATA behind the end": resets(lambda n: headers(n, BLOCK) + data(n, b"x")),
    "resets that the server makes, by a window above 2^31-1": resets(lambda n: headers(n, BLOCK) + window_update(n, 2**31 - 1)),
    "resets that the server makes, by a second head": resets(lambda n: headers(n, POST, END_HEADERS) + headers(n, POST, END_HEADERS)),
    "resets that the server makes, by PRIORITY of four octets": resets(lambda n: headers(n, BLOCK) + frame(frames.PRIORITY, 0, n, b"\0" * 4)),
    "resets that the server makes, by content-length": resets(lambda n: headers(n, request(b"POST", b"/hold", (b"content-length", b"1")), END_HEADERS) + data(n, b"xx")),
    "malformed requests": resets(lambda n: headers(n, request(b"GET", b"/", (b"X", b"y")))),
    "CONTINUATION without an end": itertools.chain([headers(1, BLOCK, END_STREAM)], itertools.repeat(continuation(1, literal(b"x-a", b"v" * 1000), 0) * 10, MANY // 10)),
    "CONTINUATION with nothing in it": itertools.chain([headers(1, BLOCK, END_STREAM)], itertools.repeat(continuation(1, b"", 0) * 100, MANY // 100)),
    "CONTINUATION of one octet": itertools.chain([headers(1, BLOCK, END_STREAM)], itertools.repeat(continuation(1, b"\x82", 0) * 100, MANY // 100)),
    "SETTINGS": itertools.repeat(settings((ENABLE_PUSH, 0)) * 100, MANY // 100),
    "SETTINGS with nothing in it": itertools.repeat(settings() * 100, MANY // 100),
    "acknowledgements of SETTINGS": itertools.repeat(settings(flags=frames.ACK) * 100, MANY // 100),
    "SETTINGS with thousands of settings": itertools.repeat(settings(*[(INITIAL_WINDOW_SIZE, n) for n in range(2700)]), 500),
    "PING": itertools.repeat(ping() * 100, MANY // 100),
    "acknowledgements of PING": itertools.repeat(ping(flags=frames.ACK) * 100, MANY // 100),
    "PRIORITY": itertools.repeat(priority(1) * 100, MANY // 100),
    "PRIORITY of many streams": resets(priority),
    "WINDOW_UPDATE of the connection": itertools.repeat(window_update(0, 1) * 100, MANY // 100),
    "WINDOW_UPDATE of a stream": itertools.chain([headers(1, BLOCK)], itertools.repeat(window_update(1, 1) * 100, MANY // 100)),
    "DATA with nothing in it": itertools.chain([headers(1, POST, END_HEADERS)], itertools.repeat(data(1) * 100, MANY // 100)),
    "DATA with nothing but padding": itertools.chain([headers(1, POST, END_HEADERS)], itertools.repeat(data(1, pad=0) * 100, MANY // 100)),
    "frames of unknown types": itertools.repeat(frame(0xEE, 0, 0, b"x" * 8) * 100, MANY // 100),
    "frames of an unknown type on a stream": itertools.chain([headers(1, POST, END_HEADERS)], itertools.repeat(frame(0xEE, 0, 1) * 100, MANY // 100)),
    "RST_STREAM of closed streams": itertools.chain([headers(1, BLOCK) + rst_stream(1)], itertools.repeat(rst_stream(1) * 100, MANY // 100)),
    "GOAWAY": itertools.repeat(frames.goaway(0) * 100, MANY // 100),
}  # fmt: skip


async def test_floods() -> None:
    """One after the other against one worker: every one is ended with ENHANCE_YOUR_CALM, and none leaves anything."""
    wrong = []
    async with target() as (one, app, cost), neighbour(one):
        for name, flood in FLOODS.items():
            before = app.seen
            async with attacker(one) as it:
                await it.flood(flood)
                with contextlib.suppress(AssertionError):
                    await until(lambda: it.closed, 3, name)
                if it.code != ENHANCE_YOUR_CALM or not it.closed:
                    wrong.append(f"{name}: {frames.code_name(it.code)}{'' if it.closed else ', open'}")
            if app.seen - before > 2_000:
                wrong.append(f"{name}: {app.seen - before} requests reached the app")
            grown, _ = cost.look()
            if grown > MEMORY:
                wrong.append(f"{name}: {grown >> 20} MiB")
        assert cost.look()[1] < 10
    assert not wrong, "\n".join(wrong)


async def test_an_hpack_bomb() -> None:
    """An entry as large as the table, and references to it: megabytes for a few octets each, on many streams."""
    name = b"x-" + b"b" * 2000
    first = headers(1, request() + literal(name, b"v" * 2000, 0x40) + indexed(62) * 10_000)
    later = [headers(stream, request() + indexed(62) * 15_000) for stream in range(3, 81, 2)]
    async with target() as (one, _app, cost), neighbour(one):
        async with attacker(one) as it:
            await it.flood([settings((MAX_CONCURRENT_STREAMS, 0)), first, *later])
            await it.send(ping(b"the end!"))
            await until(lambda: it.closed or any(one.payload == b"the end!" for one in it.got(PING)), 10, "an answer")
            answered = {one.stream for one in it.frames if one.kind in (frames.HEADERS, RST_STREAM)}
            assert it.closed or len(answered) == 40
            assert it.code in (None, ENHANCE_YOUR_CALM)
        grown, seconds = cost.look()
        assert grown < MEMORY
        assert seconds < 5


async def test_many_small_fields() -> None:
    """A header section within its octets but of thousands of fields."""
    async with target() as (one, _, cost), neighbour(one):
        async with attacker(one) as it:
            for stream in range(1, 41, 2):
                await it.send(headers(stream, request() + literal(b"a", b"") * 1500))
            await until(lambda: it.closed or len(it.got(frames.HEADERS)) + len(it.got(RST_STREAM)) >= 20, 5, "answers")
        assert cost.look()[0] < MEMORY


async def test_table_sizes_up_and_down() -> None:
    """Each costs the table's work; in blocks and in SETTINGS."""
    async with target() as (one, _, cost), neighbour(one):
        async with attacker(one) as it:
            updates = (table_size(0) + table_size(4096)) * 4000
            await it.flood(headers(stream, updates + request()) for stream in range(1, 100, 2))
            await it.flood([settings(*[(HEADER_TABLE_SIZE, size) for size in (0, 4096) * 30])] * 200)
            await until(lambda: it.closed, 5, "an end")
            assert it.code in (ENHANCE_YOUR_CALM, frames.COMPRESSION_ERROR)
        _, seconds = cost.look()
        assert seconds < 3


@pytest.mark.parametrize("what", ["PING", "SETTINGS", "RST_STREAM", "answers"])
async def test_a_client_that_never_reads(what: str) -> None:
    """What it makes us say waits in our memory only up to a limit."""
    floods: dict[str, Iterable[bytes]] = {
        "PING": itertools.repeat(ping() * 400, 4_000),
        "SETTINGS": itertools.repeat(settings() * 400, 4_000),
        "RST_STREAM": resets(lambda n: headers(n, request(b"GET", b"/", (b"X", b"y"))), 200_000, 200),
        "answers": resets(lambda n: headers(n, request(b"GET", b"/bytes/9000")), 100_000, 50),
    }
    async with target() as (one, _, cost), neighbour(one), attacker(one, read=False) as it:
        sender = asyncio.create_task(it.flood(floods[what]))
        _done, _ = await asyncio.wait([sender], timeout=1.5)
        grown, _ = cost.look()
        assert grown < MEMORY
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender


@pytest.mark.parametrize(
    "pairs", [((INITIAL_WINDOW_SIZE, 0),), ((INITIAL_WINDOW_SIZE, 1),), ()], ids=["zero", "one", "full"]
)
async def test_answers_that_nobody_takes(pairs: tuple[tuple[int, int], ...]) -> None:
    """A hundred streams of 4 MiB each, windows that do not open: the upstreams are slowed, not the worker filled."""
    async with target() as (one, app, cost), neighbour(one), attacker(one, *pairs) as it:
        await it.flood([headers(stream, request(b"GET", b"/bytes/4194304")) for stream in range(1, 201, 2)])
        await until(lambda: len(it.got(frames.HEADERS)) == 100, 10, "a hundred heads")
        quiet = 0
        while quiet < 5:
            before = app.written
            await asyncio.sleep(0.05)
            quiet = quiet + 1 if app.written == before else 0
        grown, _ = cost.look()
        assert grown < 3 * MEMORY, f"{grown >> 20} MiB"
        await it.send(rst_stream(1), headers(201, request()), window_update(201, 100), window_update(0, 100))
        await until(lambda: any(one.stream == 201 for one in it.got(frames.HEADERS)), 5, "one more answer")


async def test_a_reader_of_the_socket_that_stops() -> None:
    """Windows wide open, the socket unread."""
    size = (INITIAL_WINDOW_SIZE, 2**31 - 1)
    async with target() as (one, app, cost), neighbour(one), attacker(one, size, read=False) as it:
        await it.send(window_update(0, 2**31 - 1 - 65_535))
        await it.flood([headers(stream, request(b"GET", b"/bytes/16777216")) for stream in range(1, 101, 2)])
        quiet = 0
        while quiet < 5:
            before = app.written
            await asyncio.sleep(0.05)
            quiet = quiet + 1 if app.written == before else 0
        grown, _ = cost.look()
        assert grown < 3 * MEMORY, f"{grown >> 20} MiB"
        assert app.written < 50 * (4 << 20) + (64 << 20)


async def test_windows_octet_by_octet() -> None:
    """A DATA frame for each octet that the client asks for: dear, but bounded, and others have their turn."""
    async with target() as (one, _, cost), neighbour(one):
        async with attacker(one, (INITIAL_WINDOW_SIZE, 1)) as it:
            await it.flood([headers(stream, request(b"GET", b"/bytes/100000")) for stream in range(1, 201, 2)])
            updates = b"".join(window_update(stream, 1) for stream in range(1, 201, 2))
            for turn in range(100):
                await it.send(updates)
                await until(lambda: it.closed or len(it.got(frames.DATA)) >= 90 * turn, 5, "octets")  # noqa: B023
            assert it.code in (None, ENHANCE_YOUR_CALM)
        grown, seconds = cost.look()
        assert grown < MEMORY
        assert seconds < 5


async def test_window_sizes_of_many_streams_up_and_down() -> None:
    """One setting changes the window of every stream."""
    options = Http2Options()
    async with target(options) as (one, _, cost), neighbour(one), attacker(one, (INITIAL_WINDOW_SIZE, 1)) as it:
        await it.flood(resets(lambda n: headers(n, request(b"GET", b"/bytes/100000")), 1000))
        await until(lambda: len(it.got(frames.HEADERS)) >= 900, 20, "many heads")
        before = cost.look()[1]
        swing = settings(*[(INITIAL_WINDOW_SIZE, size) for size in (0, 1) * 30])
        await it.flood([swing] * 400)
        await until(lambda: it.closed, 5, "an end")
        assert it.code == ENHANCE_YOUR_CALM
        assert cost.look()[1] - before < 3


async def test_streams_opened_and_left() -> None:
    """Their idle timeout ends them, and lets go of their upstream's connections."""
    async with target(stream_idle_timeout=0.4) as (one, _, cost), neighbour(one):
        async with attacker(one) as it:
            await it.flood(resets(lambda n: headers(n, POST, END_HEADERS), 100))
            await until(
                lambda: (
                    len(
                        {
                            one.stream
                            for one in it.frames
                            if one.kind == RST_STREAM or (one.kind == frames.DATA and one.flags & END_STREAM)
                        }
                    )
                    == 100
                ),
                5,
                "an end of each",
            )
            assert await one.gauge("upstream_rq_active") <= 1  # the neighbour's
            await it.send(headers(201, request()))
            await until(lambda: any(one.stream == 201 for one in it.frames), 3, "room for more")
        assert cost.look()[0] < MEMORY


async def test_a_head_that_does_not_end() -> None:
    """A block that waits for its CONTINUATION has as long as a head may take."""
    async with target(request_headers_timeout=0.3) as (one, _, _), attacker(one) as it:
        await it.send(headers(1, BLOCK[:20], END_STREAM))
        await until(lambda: it.closed, 3, "an end")
        assert it.got(GOAWAY)


async def test_uploads_that_go_nowhere() -> None:
    """Bodies to an app that does not read are held up to their windows, and the client is not asked for more."""
    async with target() as (one, _, cost), neighbour(one):
        async with attacker(one) as it:
            await it.flood(resets(lambda n: headers(n, POST, END_HEADERS), 100))
            sent = 0
            for _ in range(8):
                for stream in range(1, 201, 2):
                    await it.send(data(stream, b"u" * 8192))
                    sent += 8192
            await it.send(ping(b"the end!"))
            await until(lambda: it.closed or bool(it.got(PING)), 5, "an answer")
        grown, _ = cost.look()
        assert grown < 2 * MEMORY


async def test_octets_one_by_one() -> None:
    """Bodies of DATA frames with one octet each take no more than their octets deserve."""
    async with target() as (one, _, cost), neighbour(one):
        async with attacker(one) as it:
            await it.send(headers(1, POST, END_HEADERS))
            await it.flood(itertools.repeat(data(1, b"u") * 500, 200))
            await it.send(ping(b"the end!"))
            await until(lambda: it.closed or bool(it.got(PING)), 10, "an answer")
        grown, seconds = cost.look()
        assert grown < MEMORY
        assert seconds < 5


async def test_many_connections_that_say_nothing_more() -> None:
    """A preface each, SETTINGS, and half a head."""
    async with target() as (one, _, cost), neighbour(one), contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(attacker(one)) for _ in range(200)]
        for it in idle:
            await it.send(headers(1, BLOCK[:20], END_STREAM))
        await until(lambda: all(it.frames for it in idle), 10, "SETTINGS for each")
        grown, _ = cost.look()
        assert grown < 200 * 64 * 1024 + MEMORY


async def test_a_request_with_a_million_cookie_crumbs() -> None:
    """Each crumb is an octet on the wire, and all are joined."""
    async with target() as (one, _, cost), neighbour(one):
        async with attacker(one) as it:
            bomb = request() + literal(b"cookie", b"a=b", 0x40) + indexed(62) * 16_000
            await it.send(headers(1, bomb))
            await it.flood([headers(stream, request() + indexed(62) * 16_000) for stream in range(3, 101, 2)])
            await until(lambda: it.closed or len(it.got(frames.HEADERS)) + len(it.got(RST_STREAM)) >= 50, 5, "answers")
        grown, seconds = cost.look()
        assert grown < MEMORY
        assert seconds < 5


async def test_a_hundred_streams_then_cancel_again_and_again_as_a_good_client_may() -> None:
    """Some of its calls a client does cancel: that is no attack."""
    async with target() as (one, _, _), attacker(one, (INITIAL_WINDOW_SIZE, MIB)) as it:
        await it.send(window_update(0, 1 << 24))
        stream = 1
        for _ in range(20):
            for number in range(20):
                cancelled = number % 4 == 0
                await it.send(headers(stream, BLOCK if cancelled else request()))
                if cancelled:
                    await it.send(rst_stream(stream, CANCEL))
                stream += 2
            await until(lambda: it.closed or len(it.got(frames.HEADERS)) >= (stream // 2) * 3 // 4, 5, "answers")  # noqa: B023
        assert not it.closed
        assert it.code is None


async def test_a_body_of_a_good_client_is_no_flood() -> None:
    """Thousands of DATA frames, WINDOW_UPDATE for each that comes back, PING now and then."""
    async with target() as (one, _, _), attacker(one, (INITIAL_WINDOW_SIZE, 65_535)) as it:
        await it.send(headers(1, request(b"GET", b"/bytes/4194304")))
        counted = total = 0
        while total < 4_194_304:
            await until(lambda: it.closed or len(it.frames) > counted, 5, "more")  # noqa: B023
            assert not it.closed
            fresh = [one for one in it.frames[counted:] if one.kind == frames.DATA]
            counted = len(it.frames)
            for one_frame in fresh:
                size = len(one_frame.payload)
                total += size
                if size:
                    await it.send(window_update(0, size), window_update(1, size))
            await it.send(ping())
        assert it.code is None
