"""The access log must never make a request wait: a pipe that nobody reads fills up, and its lines are dropped."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.telemetry.counters import Counters
from proxy.worker import log_file
from proxy.worker.log_file import LogFile


@contextlib.contextmanager
def a_pipe_as_stdout() -> Iterator[int]:
    """The reading end of a pipe that is standard output for the time of the test."""
    kept = os.dup(1)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(writing)
    os.set_blocking(reading, False)
    try:
        yield reading
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(reading)


def drain(fd: int) -> bytes:
    got = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(fd, 1 << 20):
            got += data
    return got


async def test_a_full_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "_MAX_BYTES", 256 * 1024)
    counters = Counters()
    with a_pipe_as_stdout() as stdout:  # a write that waits would block the loop, and the test for ever
        log = LogFile("/dev/stdout", asyncio.get_running_loop(), counters)
        for number in range(20_000):
            log.write(f"line {number:06d} {'x' * 40}\n")
        log.flush()
        got = drain(stdout)
        for _ in range(10):
            log.flush()
            got += drain(stdout)
        log.write("last\n")
        log.close()
        got += drain(stdout)
        assert os.get_blocking(1), "others that share the pipe must not be surprised"
    lines = got.decode().splitlines()
    assert lines[-1] == "last"
    assert [line[:11] for line in lines[:-1]] == [f"line {number:06d}" for number in range(len(lines) - 1)]
    assert all(len(line) == 52 for line in lines[:-1]), "lines stay whole"
    ((_, dropped),) = counters.take()[0]
    assert len(lines) - 1 + dropped == 20_000


async def test_a_line_that_comes_after_the_end_goes_to_the_file_and_nowhere_else(tmp_path: Path) -> None:
    """A connection may outlive its listener, and whoever opens something next gets the descriptor's number."""
    path = tmp_path / "log"
    log = LogFile(str(path), asyncio.get_running_loop(), Counters())
    log.write("first\n")
    log.close()
    with (tmp_path / "another").open("w") as another:
        log.write("late\n")
        log.flush()
        log.write("later\n")
        log.close()
        another.write("its own")
    assert path.read_text() == "first\nlate\nlater\n"
    assert (tmp_path / "another").read_text() == "its own"
