"""A connection of HTTP/2, whichever side we are: bytes in, streams served, one write out. The base of both sides."""

from __future__ import annotations

from random import random
from time import monotonic
from typing import Any, Final

from proxy.config.http2 import Http2Options
from proxy.http.h2 import frames
from proxy.http.h2.connection import Connection
from proxy.http.h2.frames import ENHANCE_YOUR_CALM, ConnectionFailed
from proxy.http.h2.stream import Stream
from proxy.worker.h2.flusher import Flusher
from proxy.worker.reset import poll_again
from proxy.worker.timers import Timed, Timers

_LOOK: Final = 1.0
"""Seconds between two looks at whether a connection with open streams was reset: see worker.reset."""
_KEEPALIVE: Final = b"pillion\0"


class Link(Timed):
    """One connection; an asyncio.Protocol, without the base class, which cannot be compiled.

    `dirty`: it waits for the flusher. `ending`: no stream begins on it any more. `closed`: it is of no use any more."""

    __slots__ = (
        "_due",
        "_flusher",
        "_heard",
        "_idle_interval",
        "_interval",
        "_jitter",
        "_look",
        "_lost",
        "_ping_at",
        "_ping_due",
        "_timeout",
        "_timers",
        "closed",
        "codec",
        "dirty",
        "ending",
        "transport",
    )

    def __init__(self, codec: Connection, options: Http2Options, flusher: Flusher, timers: Timers) -> None:
        super().__init__()
        self.codec = codec
        self.transport: Any = None
        self.dirty = False
        self.ending = False
        self.closed = False
        self._flusher = flusher
        self._timers = timers
        self._due = 0.0  # the subclass's next deadline
        self._heard = 0.0  # when something last came
        self._look = 0.0
        self._lost = ""  # why we gave it up
        self._interval = options.keepalive_interval
        self._jitter = options.keepalive_jitter / 100
        self._idle_interval = options.keepalive_idle
        self._timeout = options.keepalive_timeout
        self._ping_at = 0.0
        self._ping_due = 0.0  # when the answer to a PING must be there

    # ---- the subclass's

    def _accept(self, stream: Stream) -> None:
        """A stream that the peer opened."""
        raise NotImplementedError

    def _on_broken(self, code: int, text: str) -> None:
        """The connection cannot go on: tell the exchanges."""
        raise NotImplementedError

    def _on_due(self, now: float) -> None:
        """`_due` has come."""
        raise NotImplementedError

    def _on_closing(self) -> None:
        """The connection is to close: bound the time that this may take."""
        raise NotImplementedError

    def _say_goodbye(self, code: int, text: str) -> None:
        """Add GOAWAY to the output."""
        raise NotImplementedError

    # ---- bytes

    def open(self, transport: Any) -> None:
        """The connection is there."""
        self.transport = transport
        self._heard = now = monotonic()
        self._plan_ping(now)
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        codec = self.codec
        self._heard = now = monotonic()
        broken: ConnectionFailed | None = None
        try:
            codec.receive(data, now)
        except ConnectionFailed as error:
            broken = error
        if codec.ready:
            self._serve()
        if codec.drained:
            self._resume()
        if broken is not None:
            self.fail(broken.code, str(broken))
            return
        if codec.out and not self.dirty:
            self.flush_soon()
        if not self._look and codec.streams:
            self._look = now + _LOOK
            self.watch(self._look)

    def _serve(self) -> None:
        codec = self.codec
        ready, codec.ready = codec.ready, []
        failure: Exception | None = None
        for stream in ready:
            stream.queued = False
            owner = stream.owner
            try:
                if owner is None:
                    self._accept(stream)
                else:
                    owner.on_stream()
            except Exception as error:  # a bug; the others' answers may be whole, and nobody would tell them again
                failure = error
            codec.give_back(stream)
        if failure is not None:
            raise failure

    def _resume(self) -> None:
        """Streams whose data is all written now."""
        codec = self.codec
        drained, codec.drained = codec.drained, []
        for stream in drained:
            if stream.owner is not None:
                stream.owner.on_drained()

    def flush_soon(self) -> None:
        """There is output."""
        if not self.dirty:
            self.dirty = True
            self._flusher.add(self)

    def flush(self) -> None:
        """Write all that there is; called by the flusher."""
        self.dirty = False
        codec, transport = self.codec, self.transport
        while codec.out and not transport.is_closing():
            transport.write(codec.take())
            if codec.stalled:
                break
            codec.go_on()
        if codec.drained:
            self._resume()
        if codec.flooded and not self.closed:
            self.fail(ENHANCE_YOUR_CALM, codec.flooded)

    def pause_writing(self) -> None:
        self.codec.stalled = True

    def resume_writing(self) -> None:
        codec = self.codec
        codec.stalled = False
        codec.go_on()
        if codec.drained:
            self._resume()
        if codec.out:
            self.flush_soon()

    # ---- the end

    def fail(self, code: int, text: str) -> None:
        """The peer broke the connection's rules: GOAWAY, and no more."""
        if self.closed:
            return
        self._say_goodbye(code, text)
        self._flush_now()
        self.closed = self.ending = True
        self._on_broken(code, text)
        self._on_closing()
        self._close_transport()

    def _close_transport(self) -> None:
        """Close after what is written. What the peer still sends is read and dropped for a moment: closing with unread
        input would reset the connection and destroy the GOAWAY."""
        transport = self.transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # reset by the peer, which has not been read yet
                transport.abort()
        else:
            transport.close()

    def _flush_now(self) -> None:
        if self.codec.out and not self.transport.is_closing():
            self.transport.write(self.codec.take())

    def close(self) -> None:
        """Close in order; there are no streams."""
        if not self.closed:
            self._say_goodbye(frames.NO_ERROR, "")
            self._flush_now()
            self.closed = self.ending = True
            self._on_closing()
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        self.closed = self.ending = True
        if self.transport is not None:
            self.transport.abort()

    # ---- time

    def watch(self, deadline: float) -> None:
        """Look again at `deadline`, or before it."""
        if not self.deadline or deadline < self.deadline:
            self.deadline = deadline
            self._timers.watch(self)

    def due(self, deadline: float) -> None:
        """The subclass has something to do at `deadline`."""
        if not self._due or deadline < self._due:
            self._due = deadline
            self.watch(deadline)

    def on_deadline(self, now: float) -> None:
        """See worker.timers."""
        if self._look and self._look <= now:
            self._look = now + _LOOK if self.codec.streams else 0.0
            if not self.closed:
                poll_again(self.transport)
        if self._ping_at and not self.closed:
            self._keep_alive(now)
        if self._due and self._due <= now:
            self._due = 0.0
            self._on_due(now)
        for deadline in (self._look, self._due, self._ping_due or self._ping_at):
            if deadline and (not self.deadline or deadline < self.deadline):
                self.deadline = deadline

    def _keep_alive(self, now: float) -> None:
        """connection_keepalive: a PING every so often; a peer that does not answer in time is gone."""
        if self._ping_due:
            if self._heard >= self._ping_at:
                self._ping_due = 0.0
                self._plan_ping(now)
            elif self._ping_due <= now:
                self._on_silent()
        elif self._ping_at <= now:
            self._ping(now)

    def _plan_ping(self, now: float) -> None:
        self._ping_at = now + self._interval * (1 + self._jitter * random()) if self._interval else 0.0
        if self._ping_at:
            self.watch(self._ping_at)

    def _ping(self, now: float) -> None:
        self._ping_at = now
        self._ping_due = now + self._timeout
        self.watch(self._ping_due)
        self.codec.out.append(frames.ping(_KEEPALIVE, False))
        self.flush_soon()

    def ping_if_idle(self, now: float) -> None:
        """A stream is to begin: if nothing came for long, find out whether anybody is there
        (connection_idle_interval)."""
        if self._idle_interval and not self._ping_due and now - self._heard >= self._idle_interval:
            self._ping(now)

    def _on_silent(self) -> None:
        self.closed = self.ending = True
        self._lost = "no answer to a keep-alive PING"
        self.transport.abort()
