"""The leak checks themselves: each kind of leak fails a test, and a clean test passes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from tests.support import leaks


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE", 0.1)


def test_a_socket_is_a_leak_until_it_is_closed() -> None:
    before = leaks.Before()
    with socket.socket():
        assert len(before.left()) == 1
    assert before.left() == []


def test_a_process_is_a_leak_until_it_is_reaped() -> None:
    before = leaks.Before()
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        (line,) = before.left()
        assert f"process {child.pid}" in line
    assert before.left() == []


async def test_a_task_is_a_leak_until_it_has_ended() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    assert "forgotten" in (await leaks.tasks_left(before))[0]
    task.cancel()
    assert await leaks.tasks_left(before) == []


def test_every_test_is_checked(request: pytest.FixtureRequest) -> None:
    assert "nothing_left_behind" in request.fixturenames


async def test_every_async_test_is_checked_for_tasks(request: pytest.FixtureRequest) -> None:
    assert {"nothing_left_behind", "no_task_left_behind"} <= set(request.fixturenames)
