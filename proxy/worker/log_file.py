"""Access-log files: lines gather in memory and are written at most once a second, off the request path."""

from __future__ import annotations

import asyncio
import os

from proxy.telemetry.counters import Counters

_FLUSH_BYTES = 64 * 1024
_MAX_BYTES = 4 * 1024 * 1024
_INTERVAL = 1.0


class LogFile:
    """One file, opened for appending. What cannot be written is dropped and counted, never waited for."""

    __slots__ = ("_counters", "_dropped", "_fd", "_handle", "_lines", "_loop", "_size")

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        """Raises OSError."""
        self._loop = loop
        self._counters = counters
        self._dropped = counters.slot("access_log_dropped_total", path=path)
        std = {"/dev/stdout": 1, "/dev/stderr": 2}.get(path)
        # Appending keeps several workers' lines whole.
        self._fd = os.dup(std) if std else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._lines: list[str] = []
        self._size = 0
        self._handle: asyncio.TimerHandle | None = None

    def write(self, line: str) -> None:
        """Take a line with its newline."""
        if self._size > _MAX_BYTES:
            self._counters.values[self._dropped] += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._handle is None:
            self._handle = self._loop.call_later(_INTERVAL, self.flush)
        elif self._size > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if not self._lines:
            return
        count = len(self._lines)
        data = "".join(self._lines).encode("utf-8", "replace")
        self._lines = []
        self._size = 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # full disk, closed pipe, full pipe
            self._counters.values[self._dropped] += count

    def close(self) -> None:
        """Write the rest and close."""
        self.flush()
        os.close(self._fd)


class LogFiles:
    """The open files by path; listeners that log to the same path share one."""

    __slots__ = ("_counters", "_files", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._loop = loop
        self._counters = counters
        self._files: dict[str, LogFile] = {}

    def open(self, path: str) -> LogFile:
        """Raises OSError, with the path in it."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = LogFile(path, self._loop, self._counters)
        return file

    def keep(self, paths: set[str]) -> None:
        """Close the files that no listener names any more."""
        for path in set(self._files) - paths:
            self._files.pop(path).close()

    def close(self) -> None:
        """Write and close everything."""
        self.keep(set())
