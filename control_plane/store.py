"""The store: one SQLite file, one thread that touches it.

WAL with synchronous=FULL: COMMIT returns after the log is on the disk, so an acknowledged write survives kill
-9 and a power cut (sqlite.org/pragma.html#pragma_synchronous). Work is handed over as a function of the
connection and runs as one transaction, in the order in which it was handed over; the SQL lives beside the
rule that it serves.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from control_plane.errors import StartError, StoreError

T = TypeVar("T")

SCHEMA_VERSION = 1
MAX_PENDING = 4096  # transactions waiting for the disk; more are refused
MAX_AUDIT_ROWS = 10_000

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE service (name TEXT PRIMARY KEY, yaml TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE join_token (
  hash BLOB PRIMARY KEY, service TEXT NOT NULL, expires REAL NOT NULL, used REAL) WITHOUT ROWID;
CREATE TABLE session (hash BLOB PRIMARY KEY, service TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE instance (
  service TEXT NOT NULL, id TEXT NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL, labels TEXT NOT NULL,
  weight INTEGER NOT NULL, lease REAL NOT NULL, PRIMARY KEY (service, id)) WITHOUT ROWID;
CREATE TABLE audit (id INTEGER PRIMARY KEY, at REAL NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
  detail TEXT NOT NULL);
"""


class Store:
    """An open database.

    Raises StartError if the file cannot be opened, is no database or belongs to a newer Pillion.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._room = threading.BoundedSemaphore(MAX_PENDING)
        self._lock_fd = _lock(path.with_name(path.name + ".lock"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            self._db = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown()
            os.close(self._lock_fd)
            raise

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue `work` as one transaction; the result holds once it is on the disk.

        Raises StoreError when too much is waiting already. The future raises what `work` raises (rolled
        back), or StoreError for a failure of the database. Cancelling the future does not take back the work.
        """
        if not self._room.acquire(blocking=False):
            raise StoreError(f"{self.path}: {MAX_PENDING} writes are waiting for the disk; retry later")
        return self._thread.submit(self._transact, work)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """submit(), awaited. A cancelled caller does not cancel the work: the order of writes stays."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(work)))

    def close(self) -> None:
        """Finish what is queued, then close."""
        self._thread.submit(self._db.close)
        self._thread.shutdown()
        os.close(self._lock_fd)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._room.release()
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        return result


def audit(db: sqlite3.Connection, now: float, action: str, subject: str, detail: str = "") -> None:
    """Record who did what, inside the transaction that does it; the oldest rows go beyond MAX_AUDIT_ROWS."""
    row = db.execute(
        "INSERT INTO audit (at, action, subject, detail) VALUES (?, ?, ?, ?)", (now, action, subject, detail)
    ).lastrowid
    db.execute("DELETE FROM audit WHERE id <= ?", ((row or 0) - MAX_AUDIT_ROWS,))


def get_meta(db: sqlite3.Connection, key: str) -> str | None:
    """A value of the meta table, or None."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Set a value of the meta table."""
    db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))


def _lock(path: Path) -> int:
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}; choose a writable directory with --data-dir") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StartError(f"{path.parent}: another control plane uses this data directory; stop it first") from error
    return fd


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # SQLite would make it 0644
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise StartError(f"{path}: written by a newer Pillion (schema {version}); upgrade this one")
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise StartError(f"{path}: {error}") from error
    return db
