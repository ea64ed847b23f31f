"""Plays cases against a proxy from outside: a client socket, the proxy, a scripted upstream.

A lane is one listener of the proxy with an upstream of its own. Lanes run side by side; a lane plays one case after
the other, so whatever reaches its upstream belongs to the case under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from tests.conformance.case import RequestCase, ResponseCase
from tests.conformance.wire import LIMIT, Message, Truncated, WireError, read_request, read_response
from tests.support.worker import upstream

PROBE = b"GET /probe HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
"""What is asked behind a case, on the same connection where that is kept."""
_PROBE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nprobe"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_HEAD_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

SECONDS = 5.0
"""How long one case may take. A proxy that waits for more where it should have decided runs into it."""
_PAUSE = 0.001
"""Between two segments: time for the proxy to read the first one alone."""
_MAX_CUTS = 24


@dataclass(slots=True)
class Outcome:
    """What came of a case."""

    answers: list[Message] = field(default_factory=list)
    interim: list[Message] = field(default_factory=list)
    end: str = "open"
    """How the client's connection ended: closed, cut (inside a message), reset, or open when nothing came in time."""
    cut: Message | None = None
    """The answer that was cut off, when its head was whole."""
    probe: Message | None = None
    """The answer to the request behind the case."""
    probed: Message | None = None
    """That request at the upstream."""
    kept: bool = False
    """Whether that was on the same connection."""
    forwarded: list[Message] = field(default_factory=list)
    error: str = ""
    """An answer of the proxy, or a request that it sent, that is no HTTP."""
    client: str = ""
    """The client's address, as the access log writes it."""

    @property
    def statuses(self) -> tuple[int, ...]:
        return tuple(message.status for message in self.answers)


def cuts(data: bytes) -> list[int]:
    """Where to cut `data`: inside and behind line ends, and in the middle of lines; at _MAX_CUTS places at most."""
    places: set[int] = set()
    start = 0
    while (at := data.find(b"\n", start)) >= 0 and len(places) < 400:
        places |= {at, at + 1, (start + at) // 2}
        start = at + 1
    places |= {1, (start + len(data)) // 2, len(data) - 1}
    sorted_places = sorted(place for place in places if 0 < place < len(data))
    step = max(1, -(-len(sorted_places) // _MAX_CUTS))
    return sorted_places[::step]


async def write(writer: asyncio.StreamWriter, data: bytes, split: bool | Iterable[int]) -> None:
    """Write `data`, in segments when `split` says so or where."""
    places = (cuts(data) if split is True else []) if isinstance(split, bool) else sorted(split)
    start = 0
    for place in [*places, len(data)]:
        writer.write(data[start:place])
        await writer.drain()
        start = place
        if place < len(data):
            await asyncio.sleep(_PAUSE)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of a FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Client(asyncio.StreamReaderProtocol):
    """A client's connection. A reset leaves what came before it readable, and is told by `reset`."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=LIMIT)
        self.reset = False
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.writer = asyncio.StreamWriter(transport, self, self.reader, asyncio.get_running_loop())

    def connection_lost(self, exc: Exception | None) -> None:
        self.reset = exc is not None
        super().connection_lost(None)


_numbers = itertools.count()
"""Of clients: each has an address of its own."""


class Lane:
    """One port of the proxy and the upstream behind it."""

    def __init__(self) -> None:
        self.port = 0
        self.upstream_port = 0
        self.script: ResponseCase | None = None
        self.split = False
        self.seen: list[Message] = []
        self.errors: list[str] = []
        self.connections = 0
        self.open = 0
        self.gone = asyncio.Event()
        self.seconds = SECONDS

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The upstream's side of one connection."""
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            await self._serve(reader, writer, number)
        finally:
            self.open -= 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            try:
                message = await read_request(reader)
            except Truncated:
                return
            except WireError as error:
                self.errors.append(f"upstream got {error}")
                return
            if message is None:
                return
            message.connection = number
            self.seen.append(message)
            script, gone = self.script, self.gone
            if message.target == b"/probe":
                writer.write(_PROBE_ANSWER)
                await writer.drain()
                return
            if script is None:
                writer.write(_HEAD_ANSWER if message.method == b"HEAD" else _ANSWER)
                continue
            try:
                await write(writer, script.sent, self.split)
            except ConnectionError:  # refused before all was said
                gone.set()
                return
            if script.then == "close":
                return
            if script.then == "reset":
                await asyncio.sleep(20 * _PAUSE)  # a reset would overtake the bytes before it
                reset(writer)
                return
            if script.excess:
                if script.late:
                    await asyncio.sleep(20 * _PAUSE)
                    writer.write(script.late)
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                gone.set()
                return

    # ---- the client's side

    async def request(self, case: RequestCase, split: bool) -> Outcome:
        """Play one request case."""
        outcome = Outcome()
        before = len(self.seen)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self._request(case, split, outcome)
        self._collect(outcome, before)
        return outcome

    async def _request(self, case: RequestCase, split: bool, outcome: Outcome) -> None:
        async with self._client(outcome) as client:
            with contextlib.suppress(ConnectionError):  # refused before all was said
                await write(client.writer, case.sent, split)
                if case.eof:
                    client.writer.write_eof()
            while not case.kept or len(outcome.answers) < len(case.answers):
                if not await _read(client, outcome, b"HEAD" if case.head else b"GET"):
                    return
            with contextlib.suppress(ConnectionError):
                client.writer.write(PROBE)
            if await _read(client, outcome, b"GET"):
                outcome.probe = outcome.answers.pop()
                outcome.kept = True
                while await _read(client, outcome, b"GET"):
                    pass

    async def response(self, case: ResponseCase, split: bool) -> Outcome:
        """Play one response case, and ask once more behind it."""
        outcome = Outcome()
        before = len(self.seen)
        self.script, self.split = case, split
        self.gone = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self._response(case, outcome)
        self._collect(outcome, before)
        self.script = None
        return outcome

    async def _response(self, case: ResponseCase, outcome: Outcome) -> None:
        async with self._client(outcome) as client:
            client.writer.write(case.asked)
            if await _read(client, outcome, case.method):
                if case.excess:
                    await self.gone.wait()
                with contextlib.suppress(ConnectionError):
                    client.writer.write(PROBE)
                if await _read(client, outcome, b"GET"):
                    outcome.probe = outcome.answers.pop()
                    outcome.kept = True
        if outcome.probe is None:
            other = Outcome()
            async with self._client(other) as client:
                client.writer.write(PROBE)
                if await _read(client, other, b"GET"):
                    outcome.probe = other.answers.pop()

    @contextlib.asynccontextmanager
    async def _client(self, outcome: Outcome) -> AsyncIterator[Client]:
        """A connection from an address that no other has, so that access-log records are told apart."""
        number = next(_numbers)
        address = f"127.1.{number // 250}.{1 + number % 250}"
        client = Client()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, "127.0.0.1", self.port, local_addr=(address, 0))
        outcome.client = "{}:{}".format(*client.writer.get_extra_info("sockname"))
        try:
            yield client
        finally:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()

    def _collect(self, outcome: Outcome, before: int) -> None:
        for message in self.seen[before:]:
            if message.target == b"/probe":
                outcome.probed = message
            else:
                outcome.forwarded.append(message)
        if self.errors:
            outcome.error = "; ".join(filter(None, [outcome.error, *self.errors]))
            self.errors = []


async def _read(client: Client, outcome: Outcome, method: bytes) -> bool:
    """Read answers up to the next final one; False when the connection ended instead."""
    while True:
        try:
            message = await read_response(client.reader, method)
        except Truncated as error:
            outcome.cut, outcome.end = error.message, "cut"
            return False
        except WireError as error:
            outcome.error, outcome.end = f"client got {error}", "wire"
            return False
        if message is None:
            outcome.end = "closed"
            return False
        if message.framing == "close" and client.reset:
            outcome.cut, outcome.end = message, "cut"
            return False
        if message.status >= 200:
            outcome.answers.append(message)
            return True
        outcome.interim.append(message)


@contextlib.asynccontextmanager
async def upstreams(count: int) -> AsyncIterator[list[Lane]]:
    """Lanes with their upstreams; the caller puts a proxy before them and sets `port`."""
    async with contextlib.AsyncExitStack() as stack:
        lanes = [Lane() for _ in range(count)]
        for lane in lanes:
            lane.upstream_port = await stack.enter_async_context(upstream(lane.handle))
        yield lanes


async def play(lanes: list[Lane], cases: Iterable[RequestCase | ResponseCase], split: bool) -> dict[str, Outcome]:
    """Play all cases over the lanes. Names of requests and of responses may be the same: the keys are type and name."""
    waiting = list(cases)[::-1]
    outcomes: dict[str, Outcome] = {}

    async def run(lane: Lane) -> None:
        while waiting:
            case = waiting.pop()
            if isinstance(case, RequestCase):
                outcomes[key(case)] = await lane.request(case, split)
            else:
                outcomes[key(case)] = await lane.response(case, split)

    await asyncio.gather(*map(run, lanes))
    return outcomes


def key(case: RequestCase | ResponseCase) -> str:
    """What tells a case from all others."""
    return f"{type(case).__name__} {case.name}"
