"""A tree of processes that ends with its owner: started together, watched, stopped in reverse order.

Each process has a session of its own (so Ctrl-C in the terminal reaches only the owner, which then stops the
others in order), is killed by the kernel if the owner dies (tether.py), and writes stdout and stderr to one
log file. Start processes only from the main thread: PR_SET_PDEATHSIG watches the thread that forked.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LOG_LIMIT = 16 * 1024 * 1024
"""Bytes; a longer log file starts over (see Tree.trim)."""

_TETHER = str(Path(__file__).with_name("tether.py"))
# Below Linux's default range for outgoing connections (32768-60999), so none of those takes a port that we
# chose.
_PORTS = range(20_000, 32_000)
# In an order of this process's own, round and round: a port that was given out is not yet taken by whom it is for.
_next_ports = itertools.cycle(random.sample(_PORTS, len(_PORTS)))


class ProcessFailed(Exception):
    """A process ended, or was not ready in time. The text holds the end of its log."""


class Process:
    """One started process. `pid` is also the id of its session."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """Start it. Raises OSError when the log cannot be written."""
        self.name = name
        self.log = log
        self.stopping = False
        with log.open("ab") as output:  # append mode: trim() may truncate the file under its writer
            self._start = output.tell()
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", _TETHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    @property
    def died(self) -> bool:
        """True when it ended without having been asked to."""
        return not self.stopping and self.returncode is not None

    def output(self) -> str:
        """What it has written since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._start)
            return file.read().decode("utf-8", "replace")

    def find(self, pattern: str) -> re.Match[str] | None:
        """The first match of `pattern` in the output so far. Raises ProcessFailed when it has ended without
        one.
        """
        ended = self.returncode is not None
        found = re.search(pattern, self.output())
        if found is None and ended:
            raise ProcessFailed(f"{self.name} {_ending(self._popen.returncode)}\n{self.tail()}")
        return found

    def tail(self, lines: int = 15) -> str:
        """The last lines of the output, indented, behind the log file's name."""
        text = self.output().splitlines()[-lines:]
        return "\n".join([f"  {self.log}:", *(f"    {line}" for line in text)])

    def signal(self, number: int) -> None:
        """Send a signal to the process alone; nothing happens when it has ended."""
        self._popen.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.stopping = True
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its whole session: also to children that outlived it, or are in a group of their own."""
        self.stopping = True
        self.signal(signal.SIGKILL)
        for pid in sessions().get(self.pid, ()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        return self._popen.wait(timeout)


class Tree:
    """Processes with one directory of logs."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.processes: list[Process] = []

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Process:
        """Start `command`; its log is NAME.log (spaces become dashes)."""
        process = Process(name, command, self.logs / f"{name.replace(' ', '-')}.log", env)
        self.processes.append(process)
        return process

    def died(self) -> Iterator[Process]:
        """Those that ended without having been asked to."""
        return (process for process in self.processes if process.died)

    def trim(self) -> None:
        """Empty every log file above LOG_LIMIT: a mesh left running overnight must not fill the disk."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                if process.log.stat().st_size > LOG_LIMIT:
                    os.truncate(process.log, 0)

    def stop(self, grace: float = 8.0) -> list[str]:
        """End them all, youngest first; after `grace` seconds kill what is left, children included.

        Returns the names of those that had to be killed.
        """
        for process in reversed(self.processes):
            process.terminate()
        deadline = time.monotonic() + grace
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in left:
            process.kill()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        self.processes.clear()
        return [process.name for process in left]

    def _left(self) -> list[Process]:
        running = sessions()
        return [process for process in self.processes if process.returncode is None or process.pid in running]


def sessions() -> dict[int, list[int]]:
    """The processes of each session by its id, without zombies (proc(5), /proc/PID/stat, fields 3 and 6)."""
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, _group, session, *_ = stat.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                found.setdefault(int(session), []).append(int(stat.parent.name))
    return found


def children(pid: int) -> list[int]:
    """The process ids of its children now, sorted; empty when there is no such process."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):  # proc(5): per thread
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return sorted(found)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different TCP ports that nobody listens on just now, and that no earlier call gave out lately."""
    held: list[socket.socket] = []
    try:
        for port in itertools.islice(_next_ports, len(_PORTS)):
            if len(held) == count:
                break
            if (candidate := _bind(host, port)) is not None:
                held.append(candidate)
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when `port` can be bound now."""
    if (sock := _bind(host, port)) is None:
        return False
    sock.close()
    return True


def _bind(host: str, port: int) -> socket.socket | None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        return None
    return sock


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
