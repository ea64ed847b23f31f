"""Maglev (LbPolicy.MAGLEV; Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
section 3.4): a table in which each endpoint owns its share of the entries, filled as Envoy fills it, so that both send
a request to the same endpoint."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from proxy.config.balance import LoadBalancing
from proxy.policy.balance.hosts import Context, H, Picker, exhausted, keys, other
from proxy.policy.hashing import xxh64


class Maglev(Picker[H]):
    """O(1) a pick. A request without a hash goes anywhere."""

    __slots__ = ("_draw", "_hosts", "_table")

    def __init__(
        self,
        hosts: Sequence[H],
        draw: Callable[[], float],
        config: LoadBalancing,
        weights: Sequence[float] | None = None,
    ) -> None:
        """`weights` stand in place of those of the hosts."""
        shares = [float(host.weight) for host in hosts] if weights is None else list(weights)
        names = keys(hosts, config.use_hostname_for_hashing)
        order = sorted(range(len(hosts)), key=names.__getitem__)  # whatever the order that they came in
        self._hosts = tuple([hosts[index] for index in order])
        self._draw = draw
        self._table = array("L")
        if order:
            size = config.maglev_table_size
            self._table = _fill([names[index] for index in order], [shares[index] for index in order], size)

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """The owner of the request's entry, or of the next one that is not to be avoided."""
        hosts, table = self._hosts, self._table
        if not hosts:
            return None
        key = context.hash_key if context is not None else None
        if key is None:
            key = int(self._draw() * 2.0**53)
        size = len(table)
        host = hosts[table[key % size]]
        if host not in avoid or exhausted(hosts, avoid):
            return host
        # Not the next entry, or all that was meant for one host would go to one other. An endpoint without an entry
        # (more of them than the table has) is found last.
        for step in range(1, 64):
            host = hosts[table[(key + step * 40503) % size]]
            if host not in avoid:
                return host
        return other(hosts, avoid, 0)


def _fill(names: list[bytes], shares: list[float], size: int) -> array[int]:
    """Each in turn takes the next free entry of its own permutation of the table; the heaviest takes part in every
    turn, the others as often as their weights say."""
    count = len(names)
    places = [xxh64(name) % size for name in names]
    skips = [xxh64(name, 1) % (size - 1) + 1 for name in names]
    owners = [-1] * size
    heaviest = max(shares)
    equal = min(shares) == heaviest
    due = [0.0] * count
    taken = 0
    turn = 0
    while taken < size:
        turn += 1
        for index in range(count):
            if not equal:
                if turn * shares[index] < due[index]:
                    continue
                due[index] += heaviest
            place, skip = places[index], skips[index]
            while owners[place] >= 0:
                place += skip
                if place >= size:
                    place -= size
            owners[place] = index
            places[index] = place  # taken now, so that the next turn begins behind it
            taken += 1
            if taken == size:
                break
    return array("L", owners)
