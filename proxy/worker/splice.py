"""Pipes for os.splice: bytes go from socket to socket without passing through this process (splice(2)).

A pipe is lent while there are bytes in it, which is mostly for one call: so one pipe serves any number of connections
whose sinks keep up, and only a sink that does not holds one for longer.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

PIPE_BYTES: Final = 1024 * 1024
"""What one splice moves at most: the most that the kernel lets anyone ask for (/proc/sys/fs/pipe-max-size). In a pipe
of the default size, 64 KiB, splice is no faster than copying."""
MAX_PIPES: Final = 32
"""Of one worker: so at most 32 MiB wait in pipes, however many sinks are slow. Who gets none copies."""
FLAGS: Final = 0x01 | 0x02
"""SPLICE_F_MOVE | SPLICE_F_NONBLOCK; Python names neither before 3.14."""


class Pipe:
    """Two descriptors, non-blocking; `held` are the bytes in between."""

    __slots__ = ("held", "sink", "source")

    def __init__(self) -> None:
        """Raises OSError: out of descriptors, or over the kernel's bound for pipes (pipe(7), pipe-user-pages-soft)."""
        self.held = 0
        self.source, self.sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the descriptors, and of what is held."""
        os.close(self.source)
        os.close(self.sink)


class Pipes:
    """The pipes of one worker."""

    __slots__ = ("_count", "_idle", "_limit")

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._count = 0
        self._limit = MAX_PIPES

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there is none to be had."""
        if self._idle:
            return self._idle.pop()
        if self._count >= self._limit:
            return None
        try:
            pipe = Pipe()
        except OSError:
            self._limit = self._count  # those that there are will have to do
            return None
        self._count += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Give a pipe back. One that is not empty is closed: what it holds must reach nobody else."""
        if pipe.held:
            self._count -= 1
            pipe.close()
        else:
            self._idle.append(pipe)

    def refuse(self) -> None:
        """The kernel does not splice these sockets: lend no more pipes."""
        self._limit = 0
        self.close()

    def close(self) -> None:
        """Close what is idle."""
        for pipe in self._idle:
            pipe.close()
        self._count -= len(self._idle)
        self._idle.clear()
