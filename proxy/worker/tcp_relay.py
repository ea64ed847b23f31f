"""Bytes from one leg to the other, both ways, with half-close and bounded buffers.

A direction reads into one buffer that the whole worker shares and writes at once. Only what the sink does not take is
kept, at most one read's worth, and until it is gone nothing more is read. Bulk between two plain sockets goes through a
pipe by os.splice instead (see splice.py).
"""

from __future__ import annotations

import asyncio
import errno
import os
from time import monotonic
from typing import Final

from proxy.telemetry.counters import Counters
from proxy.worker.reset import was_reset
from proxy.worker.splice import FLAGS, PIPE_BYTES, Pipe, Pipes
from proxy.worker.tcp_leg import BLOCKED, Leg
from proxy.worker.timers import Timed

_READ: Final = 256 * 1024
_BULK: Final = 128 * 1024
"""A read of this many bytes says that there is more where it came from: splice from now on."""
_NO_BULK: Final = 16 * 1024
"""A splice of fewer says that copying will do."""

_room: Final = bytearray(_READ)
_view: Final = memoryview(_room)


class Relay(Timed):
    """What two directions share. `moved`: when bytes last went either way, monotonic seconds."""

    __slots__ = ("counters", "loop", "moved", "pipes")

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters, pipes: Pipes) -> None:
        super().__init__()
        self.loop = loop
        self.counters = counters
        self.pipes = pipes
        self.moved = monotonic()

    def on_end(self) -> None:
        """A direction has come to its end in order."""
        raise NotImplementedError

    def on_broken(self, leg: Leg, error: OSError) -> None:
        """A leg is broken, and with it the relay."""
        raise NotImplementedError


class Direction:
    """From `source` to `sink`. `received` and `sent` count bytes; `rx` and `tx` are the slots of their counters."""

    __slots__ = (
        "_bulk",
        "_direct",
        "_ending",
        "_pipe",
        "_reading",
        "_relay",
        "_rest",
        "_rx",
        "_tx",
        "_writing",
        "done",
        "received",
        "sent",
        "sink",
        "source",
    )

    def __init__(self, relay: Relay, source: Leg, sink: Leg, rx: int, tx: int) -> None:
        self._relay = relay
        self.source = source
        self.sink = sink
        self._rx = rx
        self._tx = tx
        self.received = 0
        self.sent = 0
        self.done = False
        self._direct = source.plain and sink.plain
        self._bulk = False
        self._pipe: Pipe | None = None
        self._rest: memoryview | None = None
        self._ending = False
        self._reading = False
        self._writing = False

    def start(self) -> None:
        """Begin, with what the source has already."""
        self._resume()
        self._on_readable()

    def stop(self) -> None:
        """Let go of the sockets, and of what was not delivered. Before either leg is closed."""
        self._pause()
        if self._writing:
            self._writing = False
            self._relay.loop.remove_writer(self.sink.fd)
        self._rest = None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._relay.pipes.give(pipe)

    @property
    def waiting(self) -> bool:
        """Whether bytes were received that the sink has not taken."""
        return self._rest is not None or self._pipe is not None or self.sink.unsent

    def _resume(self) -> None:
        if not self._reading:
            self._reading = True
            self._relay.loop.add_reader(self.source.fd, self._on_readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._relay.loop.remove_reader(self.source.fd)

    # ---- from the source

    def _on_readable(self) -> None:
        if self._bulk:
            pipe = self._relay.pipes.take()
            if pipe is not None:
                self._splice(pipe)
                return
            self._bulk = False
        relay = self._relay
        try:
            count = self.source.read(_view)
        except OSError as error:
            relay.on_broken(self.source, error)
            return
        if count == BLOCKED:
            return
        relay.moved = monotonic()
        if count:
            self.received += count
            relay.counters.values[self._rx] += count
            if count >= _BULK and self._direct:
                self._bulk = True
            if not self._write(_view[:count]):
                return
            if not self.source.ended:
                self._poll_again()
                return
        self._end()

    def _splice(self, pipe: Pipe) -> None:
        relay = self._relay
        try:
            count = os.splice(self.source.fd, pipe.sink, PIPE_BYTES, flags=FLAGS)
        except BlockingIOError:
            relay.pipes.give(pipe)
            return
        except OSError as error:
            relay.pipes.give(pipe)
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM):  # a kernel or sandbox that does not do it
                relay.pipes.refuse()
                self._bulk = False
            else:
                relay.on_broken(self.source, error)
            return
        relay.moved = monotonic()
        if not count:
            relay.pipes.give(pipe)
            self._end()
            return
        self.received += count
        relay.counters.values[self._rx] += count
        self._bulk = count >= _NO_BULK
        pipe.held = count
        self._pipe = pipe
        try:
            self._empty(pipe)
        except OSError as error:
            relay.on_broken(self.sink, error)
            return
        if pipe.held:
            self._wait()
        else:
            self._poll_again()

    def _poll_again(self) -> None:
        """See worker.reset."""
        if self._reading and was_reset(self.source.sock):
            self._pause()
            self._resume()

    def _end(self) -> None:
        """The source says no more, and all that it said is delivered."""
        self._pause()
        self._ending = True
        try:
            self.sink.end()
        except OSError as error:
            self._relay.on_broken(self.sink, error)
            return
        if self.sink.unsent:
            self._wait()
        else:
            self.done = True
            self._relay.on_end()

    # ---- to the sink

    def _write(self, data: memoryview) -> bool:
        """Whether the sink took it all; otherwise the rest is kept and the source has to wait."""
        sink = self.sink
        try:
            taken = sink.write(data)
        except OSError as error:
            self._relay.on_broken(sink, error)
            return False
        self.sent += taken
        self._relay.counters.values[self._tx] += taken
        if taken < len(data):
            self._rest = memoryview(bytes(data[taken:]))
        elif not sink.unsent:
            return True
        self._wait()
        return False

    def _empty(self, pipe: Pipe) -> None:
        """From the pipe to the sink, as far as it goes. Raises OSError."""
        try:
            count = os.splice(pipe.source, self.sink.fd, pipe.held, flags=FLAGS)
        except BlockingIOError:
            return
        pipe.held -= count
        self.sent += count
        self._relay.counters.values[self._tx] += count
        if not pipe.held:
            self._pipe = None
            self._relay.pipes.give(pipe)

    def _wait(self) -> None:
        self._pause()
        if not self._writing:
            self._writing = True
            self._relay.loop.add_writer(self.sink.fd, self._on_writable)

    def _on_writable(self) -> None:
        relay, sink = self._relay, self.sink
        relay.moved = monotonic()
        try:
            sink.flush()
            if self._pipe is not None:
                self._empty(self._pipe)
            elif self._rest is not None and not sink.unsent:
                rest = self._rest
                taken = sink.write(rest)
                self.sent += taken
                relay.counters.values[self._tx] += taken
                self._rest = rest[taken:] if taken < len(rest) else None
        except OSError as error:
            relay.on_broken(sink, error)
            return
        if self._pipe is not None or self._rest is not None or sink.unsent:
            return
        self._writing = False
        relay.loop.remove_writer(sink.fd)
        if self._ending:
            self.done = True
            relay.on_end()
        elif self.source.ended:
            self._end()
        else:
            self._resume()
