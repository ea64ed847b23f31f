"""The worker process: `python -m proxy.worker --fd N`, started by the agent with its end of a socketpair as N."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque

import uvloop

from proxy.worker import channel
from proxy.worker.runtime import Worker

log = logging.getLogger("proxy.worker")

_MAX_UNSENT = 16 * 1024 * 1024


class Link:
    """The worker's end of the socketpair. The agent's end going away ends the process at once: nobody would
    configure or restart an orphan."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._loop = loop
        self._decoder = channel.Decoder()
        self._fds: deque[int] = deque()
        self._unsent = bytearray()
        self.worker: Worker | None = None
        loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data, fds = channel.receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            os._exit(1)
        assert self.worker is not None
        if not data:
            self.worker.close_files()
            os._exit(0)
        self._fds.extend(fds)
        try:
            messages = self._decoder.feed(data)
        except Exception:
            log.exception("the agent's messages cannot be read; giving up")
            os._exit(1)
        for message in messages:
            fd = self._fds.popleft() if getattr(message, "HAS_FD", False) else None
            try:
                self.worker.handle(message, fd)
            except Exception:  # the others must not be lost with it
                log.exception("could not act on %s", type(message).__name__)

    def send(self, message: channel.Message) -> None:
        """Send without blocking; what the agent does not read yet waits, within a bound."""
        self._unsent += channel.encode(message)
        if len(self._unsent) > _MAX_UNSENT:
            log.error("the agent does not read; giving up")
            os._exit(1)
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._flush)
            return
        except OSError:
            os._exit(1)
        self._loop.remove_writer(self._sock.fileno())


async def serve(sock: socket.socket) -> None:
    """Run until the agent says stop."""
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    link = Link(sock, loop)
    link.worker = Worker(loop, link.send, stop)
    await stopped


def main(argv: list[str]) -> int:
    """Entry point. Returns the exit status."""
    if len(argv) != 2 or argv[0] != "--fd" or not argv[1].isdigit():
        print("proxy.worker is started by the agent: pillion proxy", file=sys.stderr)
        return 2
    # The agent decides when this process ends; a Ctrl-C in the terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)-5s worker[%(process)d]  %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    logging.addLevelName(logging.WARNING, "WARN")  # as agent and control plane say it
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.getLogger("proxy").addHandler(handler)
    logging.getLogger("proxy").setLevel("INFO")
    # What it has to say of a connection is said by us, in one line and counted.
    logging.getLogger("aiofastnet").setLevel(logging.CRITICAL)
    sock = socket.socket(fileno=int(argv[1]))
    sock.setblocking(False)
    with contextlib.closing(sock):
        uvloop.run(serve(sock))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
