"""What the mesh should be, now: the applied services, the registered instances, and who wants to know of
changes.

`MeshView` is what the ADS side reads. Everything it returns is replaced on change, never altered: safe to
keep.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane import mesh
from control_plane.errors import FullError, StartError
from control_plane.leases import Instance
from control_plane.registry import Registry
from control_plane.store import Store, audit, get_meta, set_meta

log = logging.getLogger("control-plane")

MAX_SERVICES = 10_000


class MeshView(Protocol):
    """What the compiler and the ADS streams may see of the mesh."""

    @property
    def trust_domain(self) -> str: ...

    @property
    def revision(self) -> int:
        """Of the applied configuration; grows by one with each apply that changes something."""

    @property
    def services(self) -> Mapping[str, mesh.ServiceDocument]:
        """The applied documents by name, ordered by name."""

    @property
    def instances(self) -> Mapping[tuple[str, str], Instance]:
        """The registered instances by (service, id), ordered."""

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called (in the event loop, no arguments) after each change; returns what ends
        it.
        """


@dataclass(frozen=True, slots=True)
class Applied:
    """One service in force: its text as written, the revision that brought it, and what it says."""

    name: str
    yaml: str
    revision: int
    document: mesh.ServiceDocument


@dataclass(frozen=True, slots=True)
class Change:
    """What an apply did, or would do on a dry run."""

    revision: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]


class MeshState:
    """The one MeshView. `await load()` before use."""

    def __init__(self, store: Store, trust_domain: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.trust_domain = trust_domain
        self.revision = 0
        self.registry = Registry(store, self._notify, clock)
        self.applied: Mapping[str, Applied] = {}
        self.services: Mapping[str, mesh.ServiceDocument] = {}
        self._store = store
        self._listeners: dict[object, Callable[[], None]] = {}
        self._one_apply = asyncio.Lock()

    @property
    def instances(self) -> Mapping[tuple[str, str], Instance]:
        return self.registry.instances

    async def load(self) -> None:
        """Read what was in force. Raises StartError if a stored service cannot be understood."""
        revision, rows = await self._store.run(_read)
        applied = {}
        for name, yaml, since in rows:
            try:
                (document,) = mesh.parse([(f"service {name}", yaml)])
            except (mesh.ConfigError, ValueError) as error:
                raise StartError(f"{self._store.path}: stored service {name}: {error}") from error
            applied[name] = Applied(name, yaml, since, document)
        self._swap(applied, revision)
        await self.registry.load()

    async def apply(self, documents: Sequence[tuple[str, str]], dry_run: bool, who: str) -> Change:
        """Replace the services that the (source, yaml) documents name: all of them or, on any error, none.

        Raises mesh.ConfigError with every problem found, FullError or StoreError.
        """
        # Shielded: once the write is on its way, memory follows it even if the caller hangs up.
        return await asyncio.shield(asyncio.ensure_future(self._apply(documents, dry_run, who)))

    async def _apply(self, documents: Sequence[tuple[str, str]], dry_run: bool, who: str) -> Change:
        async with self._one_apply:
            old = self.applied
            # In a thread: a large file takes seconds to read, and heartbeats must be heard meanwhile.
            parsed = await asyncio.to_thread(_check, list(documents), self.services)
            added = tuple(sorted(it.name for it in parsed if it.name not in old))
            changed = tuple(sorted(it.name for it in parsed if it.name in old and _text(it) != old[it.name].yaml))
            differ = {*added, *changed}
            unchanged = tuple(sorted({it.name for it in parsed} - differ))
            if dry_run or not differ:
                return Change(self.revision, added, changed, unchanged)
            revision = self.revision + 1
            fresh = [Applied(it.name, _text(it), revision, it) for it in parsed if it.name in differ]
            await self._commit(fresh, revision, who)
            return Change(revision, added, changed, unchanged)

    async def _commit(self, fresh: Sequence[Applied], revision: int, who: str) -> None:
        await self._store.run(lambda db: _write(db, fresh, revision, who))
        self._swap({**self.applied, **{it.name: it for it in fresh}}, revision)
        log.info("configuration applied revision=%d services=%s", revision, ",".join(it.name for it in fresh))
        self._notify()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._listeners[key] = listener
        return lambda: self._listeners.pop(key, None) and None

    def _swap(self, applied: Mapping[str, Applied], revision: int) -> None:
        self.applied = dict(sorted(applied.items()))
        self.services = {name: it.document for name, it in self.applied.items()}
        self.revision = revision

    def _notify(self) -> None:
        for listener in list(self._listeners.values()):
            listener()


def _check(
    documents: Sequence[tuple[str, str]], in_force: Mapping[str, mesh.ServiceDocument]
) -> list[mesh.ServiceDocument]:
    """Parse, and validate the mesh as it would be. Raises mesh.ConfigError, FullError."""
    parsed = mesh.parse(documents)
    merged = {**in_force, **{it.name: it for it in parsed}}
    if len(merged) > MAX_SERVICES:
        raise FullError(f"the mesh would have {len(merged)} services; at most {MAX_SERVICES}")
    mesh.validate(list(merged.values()))
    return parsed


def _text(document: mesh.ServiceDocument) -> str:
    """The text to keep, comments included, wherever in a file the document stood."""
    return document.yaml.strip("\r\n").removeprefix("---").strip("\r\n") + "\n"


def _read(db: sqlite3.Connection) -> tuple[int, list[tuple[str, str, int]]]:
    rows = db.execute("SELECT name, yaml, revision FROM service ORDER BY name").fetchall()
    return int(get_meta(db, "revision") or 0), rows


def _write(db: sqlite3.Connection, fresh: Sequence[Applied], revision: int, who: str) -> None:
    db.executemany("INSERT OR REPLACE INTO service VALUES (?, ?, ?)", [(it.name, it.yaml, it.revision) for it in fresh])
    set_meta(db, "revision", str(revision))
    audit(db, time.time(), "apply", who, f"revision {revision}: {', '.join(it.name for it in fresh)}"[:1000])
