"""What balancing needs to know of an endpoint and of a request, the base of all pickers, and their common fallback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from proxy.config.balance import Locality, Metadata
from proxy.policy.balance.latency import Latency


class Host(Protocol):
    """An endpoint as a picker sees it: its weight (at least 1), its requests in flight, its address and host name.
    `since`: when it came or became healthy while others served (monotonic, else 0); `serving`: it is healthy;
    `degraded`: it serves where the healthy do not suffice."""

    weight: int
    active: int
    text: str
    hostname: bytes
    since: float

    @property
    def latency(self) -> Latency: ...
    @property
    def locality(self) -> Locality: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def serving(self) -> bool: ...
    @property
    def degraded(self) -> bool: ...


H = TypeVar("H", bound=Host)


class Context:
    """What a pick may depend on of the request: its hash (64 bits), None when no hash policy gave one. `set_cookies`
    are what its answer must set so that the next request has the same hash. `metadata` is what its endpoint must
    have."""

    __slots__ = ("hash_key", "metadata", "set_cookies")

    def __init__(self, hash_key: int | None = None, metadata: Metadata = ()) -> None:
        self.hash_key = hash_key
        self.metadata = metadata
        self.set_cookies: list[bytes] = []


class Picker(Generic[H]):
    """The base of every picker: over a fixed set of hosts."""

    __slots__ = ()

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """A host, not one of those to avoid as long as there are others; None when there is none at all."""
        raise NotImplementedError


def other(hosts: Sequence[H], avoid: Sequence[H], start: int) -> H | None:
    """The first host from index `start` on, wrapping, that is not to be avoided; any host when all are."""
    count = len(hosts)
    for step in range(count):
        host = hosts[(start + step) % count]
        if host not in avoid:
            return host
    return hosts[start % count] if count else None


def exhausted(hosts: Sequence[H], avoid: Sequence[H]) -> bool:
    """Whether all hosts are to be avoided."""
    return len(avoid) >= len(hosts) and all(host in avoid for host in hosts)


def keys(hosts: Sequence[H], by_hostname: bool) -> list[bytes]:
    """What places each host on a ring or in a table: its address, or its host name, which survives a change of
    address."""
    return [host.hostname if by_hostname and host.hostname else host.text.encode() for host in hosts]
