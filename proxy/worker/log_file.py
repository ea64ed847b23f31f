"""Access-log files: lines gather in memory and are written at most once a second, off the request path."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat

from proxy.config.listener import AccessLog
from proxy.telemetry import access_log
from proxy.telemetry.access_log import Line
from proxy.telemetry.counters import Counters
from proxy.telemetry.record import Record

_FLUSH_BYTES = 64 * 1024
_MAX_BYTES = 4 * 1024 * 1024
_INTERVAL = 1.0


class LogFile:
    """One file, opened for appending. What cannot be written waits within a bound, then is dropped and counted.

    After close() it is opened again for whatever still comes: a connection may outlive the configuration of its log."""

    __slots__ = ("_counters", "_dropped", "_fd", "_flush_at", "_handle", "_lines", "_loop", "_path", "_rest", "_size")

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        """Raises OSError."""
        self._loop = loop
        self._counters = counters
        self._dropped = counters.slot("access_log_dropped_total", path=path)
        self._path = path
        self._fd = _open(path)
        self._lines: list[str] = []
        self._rest = b""  # what a full pipe did not take
        self._size = 0
        self._flush_at = _FLUSH_BYTES
        self._handle: asyncio.TimerHandle | None = None

    def write(self, line: str) -> None:
        """Take a line with its newline."""
        if self._size > _MAX_BYTES:
            self._counters.values[self._dropped] += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._fd < 0:  # nobody flushes it at the end
            self.flush()
        elif self._handle is None:
            self._handle = self._loop.call_later(_INTERVAL, self.flush)
        elif self._size > self._flush_at:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered, as far as it goes without waiting."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        data = self._rest + "".join(self._lines).encode("utf-8", "replace")
        self._lines = []
        closed = self._fd < 0 and bool(data)
        try:
            if closed:
                self._fd = _open(self._path)
            while data:
                data = data[os.write(self._fd, data) :]
        except BlockingIOError:
            self._handle = self._loop.call_later(_INTERVAL, self.flush)
        except OSError:  # full disk, closed pipe
            self._counters.values[self._dropped] += data.count(b"\n")
            data = b""
        self._rest = data
        self._size = len(data)
        self._flush_at = self._size + _FLUSH_BYTES
        if closed:
            self._let_go()

    def close(self) -> None:
        """Write the rest and close."""
        self.flush()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._counters.values[self._dropped] += self._rest.count(b"\n")
        self._rest = b""
        self._let_go()

    def _let_go(self) -> None:
        """The number may be another file's at once, so it is forgotten."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open(path: str) -> int:
    """A descriptor that appends, which keeps several workers' lines whole, and never blocks."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    std = {"/dev/stdout": 1, "/dev/stderr": 2}.get(path)
    if std is None:
        return os.open(path, flags, 0o644)
    if stat.S_ISFIFO(os.fstat(std).st_mode) or os.isatty(std):
        # Opened anew: O_NONBLOCK on a duplicate would hold for everyone who shares the pipe or terminal.
        with contextlib.suppress(OSError):  # someone else's terminal
            return os.open(f"/proc/self/fd/{std}", flags & ~os.O_CREAT)
    return os.dup(std)  # a file does not block, and its offset must stay shared


class Logger:
    """An access log: its format and its file."""

    __slots__ = ("_file", "_line")

    def __init__(self, line: Line, file: LogFile) -> None:
        self._line = line
        self._file = file

    def log(self, record: Record) -> None:
        """Take one record."""
        self._file.write(self._line.write(record))


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

    def logger(self, config: AccessLog) -> Logger:
        """An access log as configured. Raises OSError, ValueError."""
        if config.json_format is not None:
            line = access_log.compile_json(config.json_format)
        else:
            line = access_log.compile_text(config.text_format or "")
        return Logger(line, self.open(config.path))

    def keep(self, paths: set[str]) -> None:
        """Close the files that no listener names any more."""
        for path in set(self._files) - paths:
            self._files.pop(path).close()

    def close(self) -> None:
        """Write and close everything."""
        self.keep(set())
