"""What the kernel knows of a tree of processes: CPU time, memory, and the files that it has mapped (proc(5))."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pillion.demo.processes import children

_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ ([0-9a-f]+ \S+ \d+)\s*(.*)")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `pss`: pages that several processes share count as each one's share of them, as the kernel tells it.

    `alone`: what they would have with no other process on the machine: pages that are shared with others count in full,
    pages that are shared within the tree once. PSS is less when a second proxy of the same kind runs, or, for Pillion,
    any other Python.
    """

    pss: int
    alone: int


def tree(pid: int) -> list[int]:
    """The process and everything below it, parents first."""
    found = [pid]
    for parent in found:  # grows while it is walked
        found += children(parent)
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all threads that the trees below `pids` have now, user and system, to the nanosecond.

    From /proc/PID/task/TID/schedstat, whose first field is the time spent on a CPU. A thread that has ended takes its
    time with it, so both ends of a window must see the same threads; proxies at work keep theirs.
    """
    total = 0
    for root in pids:
        for pid in tree(root):
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):  # ended meanwhile
                    total += int(path.read_text().split()[0])
    return total / 1e9


def memory(pid: int) -> Memory:
    """Of the tree below `pid`, from /proc/PID/smaps."""
    texts = []
    for each in tree(pid):
        with contextlib.suppress(OSError):
            texts.append(Path(f"/proc/{each}/smaps").read_text())
    return of_smaps(texts)


def of_smaps(texts: Sequence[str]) -> Memory:
    """The same from the files' texts, one a process.

    A page of a file that two processes of the tree have cannot be told from one that each shares with someone else
    only; the greater of the two counts.
    """
    pss = alone = 0
    shared: dict[str, int] = {}
    for text in texts:
        where, here = "", dict[str, int]()
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name == "Pss":
                pss += _kilobytes(value)
            elif name.startswith("Private_"):
                alone += _kilobytes(value)
            elif name in ("Shared_Clean", "Shared_Dirty"):
                key = f"{name} {where}"
                here[key] = here.get(key, 0) + _kilobytes(value)
            elif found := _MAPPING.match(line):
                where = f"{found[1]} {found[2]}"
        for key, size in here.items():
            shared[key] = max(shared.get(key, 0), size)
    return Memory(pss * 1024, (alone + sum(shared.values())) * 1024)


def mapped(pid: int) -> set[str]:
    """The files that a process has mapped, from /proc/PID/maps. Raises OSError when there is no such process."""
    found = set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            found.add(fields[5])
    return found


def command(pid: int) -> list[str]:
    """The arguments that a process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def _kilobytes(value: str) -> int:
    return int(value.removesuffix("kB"))


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and every process that it starts inside the block, runs on `core` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
