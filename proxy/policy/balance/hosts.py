"""What balancing needs to know of an endpoint, and the fallback that all pickers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Host(Protocol):
    """An endpoint as a picker sees it: its weight (at least 1) and its requests in flight."""

    weight: int
    active: int


H = TypeVar("H", bound=Host)


def other(hosts: Sequence[H], avoid: Sequence[H], start: int) -> H | None:
    """The first host from index `start` on, wrapping, that is not to be avoided; any host when all are."""
    count = len(hosts)
    for step in range(count):
        host = hosts[(start + step) % count]
        if host not in avoid:
            return host
    return hosts[start % count] if count else None
