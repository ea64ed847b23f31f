"""For every test: it fails when it leaves a child process, a socket or a task behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from pytest_asyncio import is_async_test

from tests.support import leaks


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Set up before and torn down after the test's other function-scoped fixtures."""
    before = leaks.Before()
    yield
    if left := before.left():
        pytest.fail("left behind:\n" + "\n".join(left))


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    """Async tests have it without asking (see below)."""
    before = asyncio.all_tasks()
    yield
    if left := await leaks.tasks_left(before):
        pytest.fail("left behind:\n" + "\n".join(left))


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function):
        names = item.fixturenames
        # First, so that they are torn down last: fixtures are undone in reverse order.
        names.remove("nothing_left_behind")
        names.insert(0, "nothing_left_behind")
        if is_async_test(item):
            names.insert(1, "no_task_left_behind")
    if "integration" in item.path.parts:
        item.add_marker(pytest.mark.integration)
