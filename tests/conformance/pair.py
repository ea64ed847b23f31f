"""Two sidecars in a row, an app behind them, a client before them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.conformance.drive import Client, write
from tests.conformance.wire import Message, read_request, read_response
from tests.support.worker import snapshot, upstream, worker

MANAGER: dict[str, Any] = {"generate_request_id": False}
"""Of both listeners: what is random would differ from run to run."""


class Pair:
    """Two workers in a row and an app that keeps the last request and answers with `answer`."""

    def __init__(self) -> None:
        self.port = 0
        self.answer = b""
        self.cuts: list[int] = []
        self.close = False
        self.got: list[Message] = []

    async def app(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (message := await read_request(reader)) is not None:
            self.got.append(message)
            await write(writer, self.answer, self.cuts)
            if self.close:
                return

    async def talk(self, sent: bytes, cuts: list[int], count: int = 1, method: bytes = b"GET") -> list[Message]:
        """Send bytes on a new connection, in the segments that `cuts` makes; the answers."""
        self.got = []
        client = Client()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, "127.0.0.1", self.port)
        try:
            async with asyncio.timeout(10):
                await write(client.writer, sent, cuts)
                answers: list[Message] = []
                while len(answers) < count:
                    message = await read_response(client.reader, method)
                    assert message is not None, "closed"
                    if message.status >= 200:
                        answers.append(message)
                return answers
        finally:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()


@contextlib.asynccontextmanager
async def running(pair: Pair) -> AsyncIterator[None]:
    async with upstream(pair.app) as app, worker() as inbound, worker() as outbound:
        assert await inbound.apply(snapshot(inbound.port, app, http=MANAGER)) is None
        assert await outbound.apply(snapshot(outbound.port, inbound.port, http=MANAGER)) is None
        pair.port = outbound.port
        yield
        for one in (outbound, inbound):
            await one.at_rest()


@contextlib.contextmanager
def running_pair() -> Iterator[tuple[Pair, asyncio.Runner]]:
    """One pair for all examples of a test; the loop runs only while an example does."""
    pair = Pair()
    with asyncio.Runner() as runner:
        context = running(pair)
        runner.run(context.__aenter__())
        try:
            yield pair, runner
        finally:
            runner.run(context.__aexit__(None, None, None))
