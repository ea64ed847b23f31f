"""A listening socket in a worker: accepts connections, and stops in an orderly way. What becomes of a connection is its
subclass's: HTTP in listener.py, raw bytes in tcp.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterable
from time import monotonic
from typing import Any, Protocol

from proxy.telemetry.counters import Counters
from proxy.worker import tls
from proxy.worker.timers import Timers

log = logging.getLogger("proxy.worker.listener")

MAX_HANDSHAKES = 4096
_ACCEPTS_PER_TURN = 64
_DRAIN_TURNS = 16
_RETRY_SECONDS = 0.5
_RETIRE_CHECK = 0.1


class Accepted(Protocol):
    """A connection of a listener."""

    def drain(self, now: float) -> None:
        """The listener ends: close as soon as nothing is lost by it. Called repeatedly."""

    def abort(self) -> None:
        """Close now."""


class Acceptor:
    """One listener of one worker."""

    __slots__ = ("_accepting", "_loop", "_socket", "closed", "counters", "draining", "name", "timers")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, name: str, counters: Counters, timers: Timers
    ) -> None:
        self._loop = loop
        self._socket = sock
        self.name = name
        self.counters = counters
        self.timers = timers
        self.draining = False
        self._accepting = False
        self.closed = False
        counters.gauge(lambda: sum(1 for _ in self.open()), "downstream_cx_active", listener=name)

    # ---- the subclass's

    def take(self, sock: socket.socket, peer: Any) -> None:
        """Serve a connection; `peer` is its address as accept(2) gave it."""
        raise NotImplementedError

    def open(self) -> Iterable[Accepted]:
        """The connections that there are."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether any connection or handshake is left."""
        raise NotImplementedError

    # ---- accepting

    def start(self) -> None:
        """Accept connections."""
        if not self._accepting and not self.draining:
            self._accepting = True
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more."""
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._socket.fileno())

    def _accept(self) -> bool:
        """Accept what waits, up to a bound; whether it was reached, so that there may be more."""
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno == errno.EINVAL:  # another worker drains, too, and came first: see drain()
                    self.stop()
                    return False
                # Out of descriptors or memory, or a network error that Linux reports here (accept(2)).
                log.error("cannot accept listener=%s: %s", self.name, error)
                self.stop()
                self._loop.call_later(_RETRY_SECONDS, self.start)
                return False
            self.take(sock, address)
        return True

    def refused(self, address: str, error: BaseException) -> None:
        """A handshake failed: count why, and say it."""
        reason = tls.reason(error)
        self.counters.values[self.counters.slot("downstream_tls_error_total", listener=self.name, reason=reason)] += 1
        log.warning("TLS refused listener=%s client=%s reason=%s: %s", self.name, address, reason, error)

    # ---- the end

    def drain(self, now: float) -> None:
        """Stop accepting; close what is idle; the rest closes with its next answer."""
        if not self.draining:
            # Who is connected by now is served; who comes later is refused at once and can go elsewhere. Closing would
            # not do: the agent holds the socket as well, and the kernel would go on taking connections that nobody
            # accepts. shutdown(2) on a listening socket ends that for everyone who holds it.
            accepts = range(_DRAIN_TURNS) if self._accepting else ()
            all(self._accept() for _ in accepts)
            self.draining = True
            self.stop()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        for connection in list(self.open()):
            connection.drain(now)

    def retire(self, seconds: float) -> None:
        """The listener is gone from the configuration: finish what is in flight, for at most so long. The socket may
        serve another listener by now, so only our hold on it ends."""
        self.counters.drop_gauges(listener=self.name)
        self.draining = True
        self.stop()
        self._socket.close()
        self._retire_step(monotonic() + seconds)

    def _retire_step(self, until: float) -> None:
        now = monotonic()
        for connection in list(self.open()):
            connection.drain(now)
        if self.busy and now < until:
            self._loop.call_later(_RETIRE_CHECK, self._retire_step, until)
        else:
            self._break()

    def close(self) -> None:
        """Break what is left and let go of the socket."""
        self.draining = True
        self.stop()
        self.counters.drop_gauges(listener=self.name)
        self._break()
        self._socket.close()

    def _break(self) -> None:
        # A handshake under way is not cancelled (see Pool._dial): it ends by itself, and finds the listener closed.
        self.closed = True
        for connection in list(self.open()):
            connection.abort()
