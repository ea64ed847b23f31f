"""Weighted round robin (LbPolicy.ROUND_ROBIN): plain when all weights are equal, else earliest deadline first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace

from proxy.policy.balance.hosts import Context, H, Picker, other


class RoundRobin(Picker[H]):
    """Equal weights: O(1). Unequal: a heap of (deadline, index), O(log n); over any window each host gets its
    weight's share, evenly spread. It begins at a random place, so that many workers do not march in step."""

    __slots__ = ("_equal", "_heap", "_hosts", "_next")

    def __init__(self, hosts: Sequence[H], draw: Callable[[], float]) -> None:
        self._hosts = tuple(hosts)
        self._equal = len({host.weight for host in hosts}) <= 1
        self._next = int(draw() * len(hosts)) if hosts else 0
        self._heap: list[tuple[float, int]] = []
        if not self._equal:
            self._heap = [(draw() / host.weight, index) for index, host in enumerate(hosts)]
            heapify(self._heap)

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """The next host in turn, or the nearest one after it that is not to be avoided."""
        hosts = self._hosts
        if not hosts:
            return None
        if self._equal:
            index = self._next
            self._next = index + 1 if index + 1 < len(hosts) else 0
        else:
            deadline, index = self._heap[0]
            heapreplace(self._heap, (deadline + 1 / hosts[index].weight, index))
        host = hosts[index]
        return host if host not in avoid else other(hosts, avoid, index)
