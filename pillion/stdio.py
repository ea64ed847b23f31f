"""Standard streams of a long-running process: what its parent left closed or broken must not take it down."""

from __future__ import annotations

import contextlib
import os


def ensure_open() -> None:
    """Put /dev/null in the place of each of 0, 1, 2 that is closed.

    Else the next socket gets that number, and who writes to stdout (or libuv, which refuses to close it) meets it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def announce(line: str) -> None:
    """Write one line to stdout, if anything takes it. Unbuffered: there is nothing left to fail on at exit."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
