"""What a test may leave behind: nothing. Child processes, sockets and tasks, counted before and after."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

from pillion.demo.processes import children

GRACE = 2.0
"""Seconds that closing sockets and ending processes may take."""

OWNED: set[int] = set()
"""Process ids that a fixture with a longer life than one test starts and ends (see harness.py)."""

OWNED_SOCKETS: set[str] = set()
"""The same for sockets (see echo.py)."""


def sockets() -> set[str]:
    """The open sockets of this process, as socket:[INODE]."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def processes() -> set[int]:
    """Child processes that are neither OWNED nor pytest's own; zombies count."""
    return set(children(os.getpid())) - OWNED


class Before:
    """The state before a test; `left()` says what is there now and was not."""

    def __init__(self) -> None:
        self._sockets = sockets()
        self._processes = processes()

    def left(self) -> list[str]:
        """One line for each thing left behind, after giving it GRACE to go."""
        deadline = time.monotonic() + GRACE
        while (found := self._now()) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.05)
        return found

    def _now(self) -> list[str]:
        found = [f"process {pid}: {_command(pid)}" for pid in sorted(processes() - self._processes)]
        return found + sorted(sockets() - self._sockets - OWNED_SOCKETS)


async def tasks_left(before: set[asyncio.Task[object]]) -> list[str]:
    """Tasks that were not in `before` and do not end within GRACE; one line for each."""
    current = asyncio.current_task()
    deadline = time.monotonic() + GRACE
    while found := [t for t in asyncio.all_tasks() if t not in before and t is not current]:
        if time.monotonic() > deadline:
            return [repr(task) for task in found]
        await asyncio.sleep(0.01)
    return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "gone meanwhile"
