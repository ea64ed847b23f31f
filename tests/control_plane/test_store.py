"""What was acknowledged is there after kill -9."""

from __future__ import annotations

import random
import sqlite3
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from control_plane.errors import StartError, StoreError
from control_plane.store import SCHEMA_VERSION, Store, get_meta, set_meta

WRITER = """
import sys
from functools import partial
from pathlib import Path
from control_plane.store import Store, set_meta
store = Store(Path(sys.argv[1]))
n = int(sys.argv[2])
while True:
    n += 1
    store.submit(lambda db: set_meta(db, f"k{n}", "x" * (n % 977))).result()
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def read(keys: list[str], db: sqlite3.Connection) -> list[str | None]:
    return [get_meta(db, key) for key in keys]


def test_an_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    path, last = tmp_path / "mesh.db", 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(last)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(random.randint(1, 60)):
                last = int(writer.stdout.readline())
            writer.kill()
            for line in writer.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):  # whole lines were acknowledged before it died
                    last = int(line)
        store = Store(path)
        try:
            keys = [f"k{n}" for n in range(1, last + 1)]
            values = store.submit(partial(read, keys)).result()
        finally:
            store.close()
        assert values == ["x" * (n % 977) for n in range(1, last + 1)]


def test_work_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "mesh.db")

    def work(db: sqlite3.Connection) -> None:
        set_meta(db, "k", "v")
        raise KeyError("no")

    try:
        with pytest.raises(KeyError):
            store.submit(work).result()
        with pytest.raises(StoreError, match=r"mesh\.db: no such table"):
            store.submit(lambda db: db.execute("SELECT * FROM absent")).result()
        assert store.submit(lambda db: get_meta(db, "k")).result() is None
    finally:
        store.close()


def test_the_file_is_private_durable_and_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    store = Store(path)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(StartError, match="another control plane"):
            Store(path)

        def pragmas(db: sqlite3.Connection) -> tuple[object, object]:
            journal, synchronous = db.execute("PRAGMA journal_mode"), db.execute("PRAGMA synchronous")
            return journal.fetchone()[0], synchronous.fetchone()[0]

        assert store.submit(pragmas).result() == ("wal", 2)  # 2: FULL
    finally:
        store.close()


def test_what_is_no_store_of_ours_is_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"not a database, and long enough to be sure" * 100)
    with pytest.raises(StartError, match=r"garbage\.db: file is not a database"):
        Store(garbage)
    newer = tmp_path / "newer.db"
    db = sqlite3.connect(newer)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StartError, match="newer Pillion"):
        Store(newer)
