"""Pipes are lent empty, bounded in number, and gone when what they hold must not reach anybody else."""

import os
import resource

import pytest

from proxy.worker.splice import MAX_PIPES, Pipes


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_pipe_serves_who_comes_after_one_another() -> None:
    pipes = Pipes()
    one = pipes.take()
    assert one is not None
    os.write(one.sink, b"abc")
    assert os.read(one.source, 10) == b"abc"
    pipes.give(one)
    assert pipes.take() is one
    pipes.give(one)
    pipes.close()


def test_a_pipe_with_bytes_in_it_is_closed() -> None:
    before, pipes = open_descriptors(), Pipes()
    one = pipes.take()
    assert one is not None
    one.held = os.write(one.sink, b"secret")
    pipes.give(one)
    assert open_descriptors() == before
    other = pipes.take()
    assert other is not None
    with pytest.raises(BlockingIOError):
        os.read(other.source, 10)
    pipes.give(other)
    pipes.close()
    assert open_descriptors() == before


def test_there_are_only_so_many() -> None:
    pipes = Pipes()
    taken = [pipes.take() for _ in range(MAX_PIPES)]
    assert None not in taken
    assert pipes.take() is None
    for pipe in taken:
        assert pipe is not None
        pipe.held = 1  # so that it is closed
        pipes.give(pipe)
    again = pipes.take()
    assert again is not None
    pipes.give(again)
    pipes.close()


def test_who_gets_no_pipe_asks_no_more() -> None:
    pipes, (soft, hard) = Pipes(), resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        assert pipes.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pipes.take() is None


def test_refuse_closes_what_is_idle_and_lends_no_more() -> None:
    before, pipes = open_descriptors(), Pipes()
    pipe = pipes.take()
    assert pipe is not None
    pipes.give(pipe)
    pipes.refuse()
    assert pipes.take() is None
    assert open_descriptors() == before
