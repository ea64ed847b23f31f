"""Ring hash (LbPolicy.RING_HASH): each endpoint has many points on a ring, and a hash belongs to the next one.

Where an endpoint's points are depends on the endpoint alone, so when one leaves only what was its own goes elsewhere.
Envoy counts the points of all anew whenever the number of endpoints changes, which moves up to twice as much; its
rings and these agree in the hash functions, but not in the number of points.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from proxy.config.balance import LoadBalancing
from proxy.policy.balance.hosts import Context, H, Picker, exhausted, keys
from proxy.policy.hashing import murmur2, xxh64

MOST_POINTS: Final = 64 * 1024
"""Points of a ring, however many endpoints there are; each has one at least."""


class Points:
    """The points of endpoints by their key, kept from one ring to the next: hashing is most of the work."""

    __slots__ = ("_known", "_used")

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int, str], list[int]] = {}
        self._used: dict[tuple[bytes, int, str], list[int]] = {}

    def of(self, counts: list[tuple[bytes, int]], function: str) -> list[list[int]]:
        """The points of each (key, how many), sorted."""
        found: list[list[int]] = []
        for key, count in counts:
            entry = (key, count, function)
            points = self._known.get(entry)
            if points is None:
                if function == "MURMUR_HASH_2":
                    points = sorted([murmur2(b"%b_%d" % (key, i)) for i in range(count)])
                else:
                    points = sorted([xxh64(b"%b_%d" % (key, i)) for i in range(count)])
            self._used[entry] = points
            found.append(points)
        return found

    def forget(self) -> None:
        """What was not asked for since the last time is gone."""
        self._known, self._used = self._used, {}


class RingHash(Picker[H]):
    """O(log n) a pick. A request without a hash goes anywhere."""

    __slots__ = ("_draw", "_hosts", "_owners", "_points")

    def __init__(
        self,
        hosts: Sequence[H],
        draw: Callable[[], float],
        config: LoadBalancing,
        points: Points,
        weights: Sequence[float] | None = None,
    ) -> None:
        """`weights` stand in place of those of the hosts."""
        self._hosts = tuple(hosts)
        self._draw = draw
        shares = [float(host.weight) for host in hosts] if weights is None else list(weights)
        self._points = array("Q")
        self._owners = array("L")
        if not shares:
            return
        # As many points for the lightest endpoint as the smallest ring has, unless that makes the ring too large.
        most = min(config.maximum_ring_size, max(MOST_POINTS, config.minimum_ring_size))
        total = 0.0  # not sum(), which mypyc takes for an int
        for share in shares:
            total += share
        unit = config.minimum_ring_size / min(shares)
        if unit * total > most:
            unit = most / total
        names = keys(self._hosts, config.use_hostname_for_hashing)
        counts = [(name, max(1, int(share * unit))) for name, share in zip(names, shares, strict=True)]
        owners: dict[int, int] = {}
        ring: list[int] = []
        for index, places in enumerate(points.of(counts, config.hash_function)):
            ring += places
            for place in places:
                owners[place] = index
        ring.sort()  # of runs that are sorted: about linear
        self._points = array("Q", ring)
        self._owners = array("L", [owners[place] for place in ring])

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """The owner of the first point at or after the request's hash, or of the next that is not to be avoided."""
        hosts, points = self._hosts, self._points
        if not hosts:
            return None
        key = context.hash_key if context is not None else None
        if key is None:
            key = int(self._draw() * 2.0**64)
        count = len(points)
        start = bisect_left(points, key)
        if start == count:
            start = 0
        host = hosts[self._owners[start]]
        if host not in avoid or exhausted(hosts, avoid):
            return host
        at = start
        while host in avoid:
            at = at + 1 if at + 1 < count else 0
            host = hosts[self._owners[at]]
        return host
