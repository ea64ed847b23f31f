"""Keeps N workers alive and up to date. Nothing here waits for a worker: each is told what is wanted, at its pace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from proxy.agent.sockets import ListeningSockets
from proxy.agent.worker_process import ANSWER_TIMEOUT, COMMAND, Target, WorkerProcess, describe
from proxy.config.listener import Listener
from proxy.config.snapshot import Snapshot
from proxy.worker.channel import Applied, Flush, LogLevel, Readmit, Stats, Workers

logger = logging.getLogger(__name__)


class RestartBackoff:
    """How long to wait before a dead worker is replaced: not at all the first time, then 0.1 s doubling to 5 s.
    A worker that lived 10 s starts the sequence afresh. Times are seconds."""

    FIRST, LIMIT, GOOD_LIFE = 0.1, 5.0, 10.0

    def __init__(self) -> None:
        self._next = 0.0

    def died(self, life: float) -> float:
        """The delay before the next start, given how long the dead one lived."""
        if life >= self.GOOD_LIFE:
            self._next = 0.0
        delay = self._next
        self._next = min(self.LIMIT, max(self.FIRST, delay * 2))
        return delay


class Supervisor:
    """Owns the workers and the listening sockets. Use from one event loop."""

    def __init__(
        self,
        count: int,
        *,
        on_stats: Callable[[int, Stats], None],
        on_gone: Callable[[int], None] = lambda _pid: None,
        log_level: str = "info",
        command: Sequence[str] = COMMAND,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        """`on_stats(pid, stats)` gets what workers count; `on_gone(pid)` is told when one is no more."""
        self.sockets = ListeningSockets()
        self.restarts = 0
        self.draining = False
        self._count = count
        self._on_stats, self._on_gone = on_stats, on_gone
        self._log_level = log_level
        self._command, self._answer_timeout = command, answer_timeout
        self._workers: list[WorkerProcess] = []
        self._backoffs = [RestartBackoff() for _ in range(count)]
        self._slots: dict[int, int] = {}  # pid → index into _backoffs
        self._restarting: set[asyncio.TimerHandle] = set()
        self._version = 0
        self._target: Target | None = None
        self._good: Target | None = None
        self._refusal: str | None = None
        self._changed = asyncio.Event()
        self._flushes: dict[int, tuple[set[int], asyncio.Event]] = {}
        self._next_flush = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """The live workers."""
        return tuple(worker.pid for worker in self._workers)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot that a worker has put in force."""
        return self._good.snapshot if self._good else None

    def start(self) -> None:
        """Spawn the workers; they boot while the first configuration is on its way."""
        for slot in range(self._count):
            self._spawn(slot)

    def reserve(self, listeners: Sequence[Listener]) -> None:
        """Bind and listen for these already; raises BindError and changes nothing when one address cannot be had."""
        self.sockets.open(listeners)

    def push(self, snapshot: Snapshot, keys: Mapping[str, bytes]) -> None:
        """Make `snapshot` what every worker should have. `keys`: PEM of chain and key for each certificate.

        Returns at once; settled() waits. Raises BindError, and then nothing has changed."""
        self.sockets.open(list(snapshot.listeners.values()))
        self._version += 1
        self._refusal = None
        self._aim(Target(self._version, snapshot, dict(keys)))

    async def settled(self, limit: float) -> str | None:
        """Wait until every worker has what is wanted: None. Or why not: a worker's refusal, or the time is over."""
        try:
            async with asyncio.timeout(limit):
                while self._refusal is None:
                    wanted = self._target
                    if (
                        wanted is not None
                        and len(self._workers) == self._count
                        and all(w.applied is not None and w.applied.version == wanted.version for w in self._workers)
                    ):
                        return None
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return f"the workers did not answer within {limit:g} s"
        return self._refusal

    async def flush(self, limit: float = 0.5) -> None:
        """Have every worker report what it counted; waits for them at most `limit` seconds."""
        if not self._workers:
            return
        self._next_flush += 1
        done = asyncio.Event()
        self._flushes[self._next_flush] = ({w.pid for w in self._workers}, done)
        try:
            for worker in tuple(self._workers):
                worker.send(Flush(self._next_flush))
            async with asyncio.timeout(limit):
                await done.wait()
        except TimeoutError:
            pass  # what the others said counts
        finally:
            del self._flushes[self._next_flush]

    def set_log_level(self, level: str) -> None:
        """Change the log level of every worker, and of those to come."""
        self._log_level = level
        for worker in tuple(self._workers):
            worker.send(LogLevel(level))

    def tell(self, message: Readmit) -> None:
        """Have every worker that there is now act on a message."""
        for worker in tuple(self._workers):
            worker.send(message)

    def drain(self, seconds: float) -> None:
        """Stop accepting; every worker ends when its requests are finished, or after `seconds`. No restarts."""
        if self.draining:
            return
        self.draining = True
        self._cancel_restarts()
        for worker in tuple(self._workers):
            worker.drain(seconds)
        self.sockets.close()
        self._changed.set()

    async def stop(self, seconds: float) -> None:
        """Drain; whoever is left one second after the time given is killed. Returns when no worker is left."""
        self.drain(seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds + 1.0
        while self._workers:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                self.kill()
                deadline = loop.time() + 5.0

    def kill(self) -> None:
        """End every worker now, whatever it is doing."""
        for worker in tuple(self._workers):
            worker.kill("not done when its time was over")

    async def abandon(self) -> None:
        """The start failed: end every worker now, without a word, and close the sockets."""
        self.draining = True
        self._cancel_restarts()
        self.sockets.close()
        for worker in tuple(self._workers):
            worker.end()
        while self._workers:
            self._changed.clear()
            await self._changed.wait()

    # ---- workers -----

    def _spawn(self, slot: int) -> None:
        if self.draining:
            return
        loop = asyncio.get_running_loop()
        try:
            worker = WorkerProcess(loop, self.sockets, self._message, self._exited, self._command, self._answer_timeout)
        except OSError as error:
            logger.error("cannot start a worker error=%r", str(error))
            self._later(slot, self._backoffs[slot].died(0.0))
            return
        self._slots[worker.pid] = slot
        self._workers.append(worker)
        logger.debug("worker started pid=%d", worker.pid)
        worker.send(LogLevel(self._log_level))
        worker.send(Workers(self._count))
        if self._target is not None:
            worker.want(self._target)

    def _cancel_restarts(self) -> None:
        for timer in self._restarting:
            timer.cancel()
        self._restarting.clear()

    def _later(self, slot: int, delay: float) -> None:
        def now() -> None:
            self._restarting.discard(timer)
            self._spawn(slot)

        timer = asyncio.get_running_loop().call_later(delay, now)
        self._restarting.add(timer)

    def _exited(self, worker: WorkerProcess, status: int) -> None:
        self._workers.remove(worker)
        slot = self._slots.pop(worker.pid)
        for flush_id in tuple(self._flushes):
            self._flushed(flush_id, worker.pid)
        self._on_gone(worker.pid)
        self._changed.set()
        if self.draining:
            logger.debug("worker ended pid=%d %s", worker.pid, describe(status))
            return
        life = asyncio.get_running_loop().time() - worker.started
        delay = self._backoffs[slot].died(life)
        self.restarts += 1
        logger.error("worker died pid=%d %s life=%.1fs restart_in=%.1fs", worker.pid, describe(status), life, delay)
        self._later(slot, delay)

    def _message(self, worker: WorkerProcess, message: Applied | Stats) -> None:
        if isinstance(message, Stats):
            self._on_stats(worker.pid, message)
            self._flushed(message.id, worker.pid)
            return
        if message.error is not None:
            self._refused(worker, message.version, message.error)
        elif self._target is not None and message.version == self._target.version:
            self._good = self._target
        self._close_unused()
        self._changed.set()

    def _flushed(self, flush_id: int, pid: int) -> None:
        if flush_id in self._flushes:
            waiting, done = self._flushes[flush_id]
            waiting.discard(pid)
            if not waiting:
                done.set()

    # ---- configuration -----

    def _aim(self, target: Target) -> None:
        self._target = target
        for worker in tuple(self._workers):
            worker.want(target)

    def _refused(self, worker: WorkerProcess, version: int, error: str) -> None:
        logger.error("configuration refused by worker pid=%d version=%d error=%r", worker.pid, version, error)
        if self._target is not None and version == self._target.version:
            self._refusal = error
            if self._good is not None and self._good.snapshot is not self._target.snapshot:
                # A new version, so that workers which took the refused one come back as well.
                self._version += 1
                self._aim(Target(self._version, self._good.snapshot, self._good.keys))

    def _close_unused(self) -> None:
        if self._target is None:
            return
        used = {str(listener.address) for listener in self._target.snapshot.listeners.values()}
        for worker in self._workers:
            used |= worker.addresses()
        self.sockets.keep_only(used)
