"""The registry: the lease table on a clock and on disk.

Registrations are written down, heartbeats are not. After a restart every instance that was registered gets
one fresh lease, so that nobody is withdrawn because the control plane was away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from control_plane.errors import StoreError
from control_plane.leases import Instance, Lease, Leases, check_instance, check_lease
from control_plane.store import Store

log = logging.getLogger("control-plane")

MIN_TIMER = 0.05  # seconds; expiries closer together than this share a turn
STALL = 0.5  # seconds; a timer later than this means that heartbeats, too, are waiting to be heard


class Registry:
    """`on_change` is called in the event loop after instances came, went or changed; not for heartbeats."""

    def __init__(
        self, store: Store, on_change: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._clock = clock
        self._leases = Leases()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._instances: Mapping[tuple[str, str], Instance] | None = None

    @property
    def instances(self) -> Mapping[tuple[str, str], Instance]:
        """By (service, id), ordered. Built anew after a change, never altered: safe to keep."""
        if self._instances is None:
            self._instances = {lease.instance.key: lease.instance for lease in self._leases}
        return self._instances

    def leases(self) -> list[tuple[Lease, float]]:
        """Each lease and the seconds it has left."""
        now = self._clock()
        return [(lease, lease.deadline - now) for lease in self._leases]

    async def load(self) -> None:
        """Read what was registered before; every instance gets one fresh lease from now."""
        for instance, seconds in await self._store.run(_read):
            self._leases.register(instance, seconds, self._clock())
        self._publish()

    async def register(self, instance: Instance, seconds: float) -> float:
        """Grant the lease (0: the default) and return it. Returns after the registration is on disk.

        Raises RequestError, FullError, StoreError.
        """
        check_instance(instance)
        seconds = check_lease(seconds)
        # Memory first and the write queued in the same turn: the disk sees changes in the order memory saw
        # them.
        changed = self._leases.register(instance, seconds, self._clock())
        try:
            await self._store.run(lambda db: _write(db, instance, seconds))
        finally:
            if changed:
                log.info("instance registered service=%s id=%s", instance.service, instance.id)
                self._publish()
            else:
                self._schedule()
        return seconds

    def heartbeat(self, service: str, instance_id: str) -> float | None:
        """Renew; the lease in seconds, or None if it has ended (or never was)."""
        return self._leases.heartbeat(service, instance_id, self._clock())

    async def deregister(self, service: str, instance_id: str) -> None:
        """Withdraw at once; nothing happens if it is not there. Raises StoreError."""
        if self._leases.deregister(service, instance_id):
            log.info("instance deregistered service=%s id=%s", service, instance_id)
            self._publish()
            await self._store.run(lambda db: _delete(db, [(service, instance_id)]))

    def _on_timer(self) -> None:
        late = self._clock() - self._due
        if late > STALL:  # this process was stopped, or starved
            log.warning("every lease starts anew: nobody could be heard for %.1f s", late)
            self._leases.renew_all(self._clock())
        self.expire()

    def expire(self) -> None:
        """Withdraw the instances whose lease is over; the timer calls this."""
        gone = self._leases.expire(self._clock())
        if not gone:
            self._schedule()
            return
        for instance in gone:
            log.warning("lease ended, instance withdrawn service=%s id=%s", instance.service, instance.id)
        self._publish()
        keys = [instance.key for instance in gone]
        try:
            self._store.submit(lambda db: _delete(db, keys)).add_done_callback(_log_failure)
        except StoreError as error:  # they would come back for one lease after a restart, no more
            log.error("forgetting instances: %s", error)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _publish(self) -> None:
        self._instances = None
        self._schedule()
        self._on_change()

    def _schedule(self) -> None:
        self.close()
        deadline = self._leases.next_deadline()
        if deadline is not None:
            now = self._clock()
            self._due = max(now + MIN_TIMER, deadline)
            self._timer = asyncio.get_running_loop().call_later(self._due - now, self._on_timer)


def _log_failure(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        log.error("forgetting instances: %s", error)


def _read(db: sqlite3.Connection) -> list[tuple[Instance, float]]:
    rows = db.execute("SELECT service, id, host, port, labels, weight, lease FROM instance ORDER BY service, id")
    return [
        (Instance(service, name, host, port, json.loads(labels), weight), lease)
        for service, name, host, port, labels, weight, lease in rows
    ]


def _write(db: sqlite3.Connection, it: Instance, seconds: float) -> None:
    labels = json.dumps(dict(it.labels), sort_keys=True)
    db.execute(
        "INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?, ?, ?, ?)",
        (it.service, it.id, it.host, it.port, labels, it.weight, seconds),
    )


def _delete(db: sqlite3.Connection, keys: list[tuple[str, str]]) -> None:
    db.executemany("DELETE FROM instance WHERE service = ? AND id = ?", keys)
