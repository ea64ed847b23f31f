"""For every test: it fails when it leaves a child process, a socket or a task behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import hypothesis  # noqa: F401  # its pytest plugin would import it at the end, deep in pytest's stack
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
        names, known = item.fixturenames, item._fixtureinfo.name2fixturedefs
        names.remove("nothing_left_behind")
        # Before the other fixtures of function scope (so torn down after them), behind those that live longer.
        longer = [name for name in names if name in known and known[name][-1].scope != "function"]
        ours = ["nothing_left_behind", *(["no_task_left_behind"] if is_async_test(item) else [])]
        rest = [name for name in names if name not in longer]
        names[:] = longer + ours + rest
    if "integration" in item.path.parts:
        item.add_marker(pytest.mark.integration)
