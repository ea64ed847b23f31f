"""One worker: its process, its channel, and what it has been told. The supervisor decides, this carries out.

At most one Update is under way; when it is answered, the next one carries the delta to whatever is wanted by then.
So a slow worker costs the agent nothing but the sockets and keys that one delta needs, however many updates come.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy import compiled
from proxy.agent.sockets import ListeningSockets
from proxy.config.snapshot import Snapshot, diff
from proxy.worker.channel import (
    Applied,
    Decoder,
    Drain,
    Flush,
    Key,
    Listen,
    Message,
    Stats,
    Update,
    encode,
    memfd,
    receive,
)

logger = logging.getLogger(__name__)

COMMAND: Sequence[str] = (sys.executable, "-P", "-m", "proxy.worker")
ANSWER_TIMEOUT = 10.0
"""Seconds that a worker has to read what it is sent and to answer it; then it is killed."""
PING_INTERVAL = 5.0
"""Seconds between the questions that find out whether a worker still answers."""
PING_ID = -1
"""The id of such a question; those of Supervisor.flush are positive."""
MAX_QUEUED = 1024
"""Messages that may wait for a worker; more means that it does not read."""


@dataclass(frozen=True, slots=True)
class Target:
    """What every worker should have: a snapshot, and for each of its certificates the PEM of chain and key."""

    version: int
    snapshot: Snapshot
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)


class WorkerProcess:
    """A live worker. `on_message` gets what it says (Applied and Stats); `on_exit` its exit status, once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: ListeningSockets,
        on_message: Callable[[WorkerProcess, Applied | Stats], None],
        on_exit: Callable[[WorkerProcess, int], None],
        command: Sequence[str] = COMMAND,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._loop, self._sockets = loop, sockets
        self._on_message, self._on_exit = on_message, on_exit
        self._timeout = answer_timeout
        self.started = loop.time()
        self.applied: Target | None = None
        self._wanted: Target | None = None
        self._sent: Target | None = None
        self._refused: int | None = None
        self._known_keys: dict[str, str] = {}  # certificate name → key_id
        self._listening: set[str] = set()
        self._out: deque[tuple[memoryview, int | None]] = deque()
        self._decoder = Decoder()
        self._channel, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.setblocking(False)
        self._deadline: asyncio.TimerHandle | None = None
        with child:
            try:
                self._process = _spawn((*command, "--fd", str(child.fileno())), child.fileno())
            except BaseException:
                self._channel.close()
                raise
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._exited)
        loop.add_reader(self._channel, self._readable)
        self._ping: asyncio.TimerHandle | None = loop.call_later(PING_INTERVAL, self._ask)

    def want(self, target: Target) -> None:
        """Bring this worker to `target`, at once or when it has answered what is under way."""
        self._wanted = target
        if self._sent is None:
            self._advance()

    def drain(self, seconds: float) -> None:
        """Tell it to finish and end; no configuration follows."""
        self._wanted = None
        self.send(Drain(seconds))

    def addresses(self) -> set[str]:
        """The listening addresses that the worker may be using."""
        return set(self._listening)

    def send(self, message: Message, fd: int | None = None) -> None:
        """Queue a message; takes ownership of `fd`. Never blocks."""
        if self._channel.fileno() < 0 or len(self._out) >= MAX_QUEUED:
            if fd is not None:
                os.close(fd)
            if self._channel.fileno() >= 0:
                self.kill("does not read its channel")
            return
        idle = not self._out
        self._out.append((memoryview(encode(message)), fd))
        if idle:
            self._writable()

    def kill(self, why: str) -> None:
        """End it at once (SIGKILL); on_exit follows."""
        logger.error("worker killed pid=%d why=%r", self.pid, why)
        self.end()

    def end(self) -> None:
        """The same without a word."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)

    # ---- configuration -----

    def _advance(self) -> None:
        target = self._wanted
        if (
            target is None
            or target.version == self._refused
            or (self.applied and self.applied.version == target.version)
        ):
            return
        before = self.applied.snapshot if self.applied else Snapshot()
        delta = diff(before, target.snapshot)
        for listener in target.snapshot.listeners.values():
            address = str(listener.address)
            if address not in self._listening:
                self._listening.add(address)
                self.send(Listen(address), os.dup(self._sockets.get(address).fileno()))
        for certificate in target.snapshot.certificates.values():
            if self._known_keys.get(certificate.name) != certificate.key_id:
                self._known_keys[certificate.name] = certificate.key_id
                content = memfd(f"pillion-{certificate.name}", target.keys[certificate.name])
                self.send(Key(certificate.name, certificate.key_id), content)
        self._sent = target
        self.send(Update(target.version, delta))
        self._expect_answer()

    def _answered(self, message: Applied) -> None:
        target = self._sent
        if target is None or message.version != target.version:
            self.kill(f"answered update {message.version}, which is not under way")
            return
        self._sent = None
        if message.error is None:
            self.applied = target
            self._listening &= {str(listener.address) for listener in target.snapshot.listeners.values()}
        else:
            self._refused = target.version
        self._on_message(self, message)
        if self._sent is None:
            self._advance()

    # ---- liveness -----

    def _ask(self) -> None:
        self.send(Flush(PING_ID))
        self._expect_answer()
        self._ping = self._loop.call_later(PING_INTERVAL, self._ask)

    def _expect_answer(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._timeout, self.kill, f"no answer for {self._timeout:g} s")

    def _heard(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # ---- channel -----

    def _writable(self) -> None:
        while self._out:
            data, fd = self._out[0]
            try:
                if fd is None:
                    sent = self._channel.send(data)
                else:
                    sent = socket.send_fds(self._channel, [data], [fd])
                    os.close(fd)
            except BlockingIOError:
                self._out[0] = (data, fd)
                self._loop.add_writer(self._channel, self._writable)
                return
            except OSError:
                self._close_channel()  # it is going; the exit status says why
                return
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], None)
        self._loop.remove_writer(self._channel)

    def _readable(self) -> bool:
        """Take in what there is; False: nothing, or the channel is at its end."""
        try:
            data, fds = receive(self._channel)
        except BlockingIOError:
            return False
        except OSError:
            data, fds = b"", []
        for fd in fds:
            os.close(fd)
        if not data:
            self._close_channel()
            # Without its channel a worker is to end by itself; give a well-behaved one the time to.
            self._heard()
            self._deadline = self._loop.call_later(1.0, self.end)
            return False
        try:
            messages = self._decoder.feed(data)
        except Exception as error:
            self.kill(f"corrupted channel: {error}")
            return False
        for message in messages:
            if isinstance(message, Applied):
                self._heard()
                self._answered(message)
            elif isinstance(message, Stats):
                self._heard()
                if self._sent is not None:
                    self._expect_answer()
                self._on_message(self, message)
            else:
                self.kill(f"sent a {type(message).__name__}")
        return True

    def _close_channel(self) -> None:
        if self._channel.fileno() < 0:
            return
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        for _data, fd in self._out:
            if fd is not None:
                os.close(fd)
        self._out.clear()
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        while self._channel.fileno() >= 0 and self._readable():
            pass  # the last Stats may still lie in the socket
        self._close_channel()
        self._heard()
        self._on_exit(self, status)


def describe(status: int) -> str:
    """Why a process ended: `signal=SIGKILL` or `status=1`. `status` is subprocess's returncode."""
    if status < 0:
        try:
            return f"signal={signal.Signals(-status).name}"
        except ValueError:
            return f"signal={-status}"
    return f"status={status}"


def _spawn(command: Sequence[str], fd: int) -> subprocess.Popen[bytes]:
    # A fresh interpreter (vfork and exec), so a live grpc in this process is never forked. It must find the same
    # code as this one whatever the working directory holds. Its own process group keeps a terminal's Ctrl-C away:
    # the agent decides how to drain.
    root = str(compiled.path() or compiled.SOURCE.parent)
    path = os.environ.get("PYTHONPATH")
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
    return subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.DEVNULL, env=env, close_fds=True, process_group=0)
