"""Waiting for a condition, with an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float, what: str = "", interval: float = 0.02) -> T:
    """The first truthy value of `condition`. Raises AssertionError with its last value after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what or 'a condition'}; last value: {value!r}")
        time.sleep(interval)


async def until(condition: Callable[[], T], within: float, what: str = "", interval: float = 0.01) -> T:
    """wait_until for code in an event loop."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within:g} s for {what or 'a condition'}; last value: {value!r}")
        await asyncio.sleep(interval)
