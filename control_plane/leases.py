"""Who serves where, for how long: instances and their leases. Pure; `now` is monotonic seconds, given by the
caller.

Each instance has one entry in a heap of deadlines. A heartbeat only moves the instance's own deadline; the
entry is corrected when it comes up. So heartbeats cost O(1) and one timer (`next_deadline`) serves all
instances.
"""

from __future__ import annotations

import heapq
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from control_plane.errors import FullError, RequestError
from control_plane.mesh.schema import RESERVED_NAMES

DEFAULT_LEASE = 10.0  # seconds
MIN_LEASE = 1.0
MAX_LEASE = 300.0
MAX_INSTANCES = 20_000
MAX_LABELS = 32
MAX_LABEL_SIZE = 256  # characters, key and value each

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def check_service_name(name: str, place: str = "service") -> str:
    """The name, if it is a DNS label (RFC 1123). Raises RequestError."""
    if not _NAME.fullmatch(name):
        raise RequestError(f"{place}: {name[:80]!r} is not a service name (a-z, 0-9 and -, at most 63 characters)")
    if name in RESERVED_NAMES:
        raise RequestError(f"{place}: the name {name!r} is reserved")
    return name


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy of a service, and where other sidecars reach its inbound listener."""

    service: str
    id: str
    host: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1

    @property
    def key(self) -> tuple[str, str]:
        return (self.service, self.id)


def check_instance(instance: Instance) -> Instance:
    """The instance, if every field is in its bounds. Raises RequestError naming the field."""
    check_service_name(instance.service, "instance.service")
    if not _ID.fullmatch(instance.id):
        raise RequestError(f"instance.id: {instance.id[:80]!r} must be 1 to 128 of A-Z a-z 0-9 . _ -")
    _check_host(instance.host)
    if not 1 <= instance.port <= 65535:
        raise RequestError(f"instance.port: {instance.port} is not in 1..65535")
    if not 1 <= instance.weight <= 128:
        raise RequestError(f"instance.weight: {instance.weight} is not in 1..128")
    if len(instance.labels) > MAX_LABELS:
        raise RequestError(f"instance.labels: {len(instance.labels)} labels; at most {MAX_LABELS}")
    for key, value in instance.labels.items():
        if not key or len(key) > MAX_LABEL_SIZE or len(value) > MAX_LABEL_SIZE:
            raise RequestError(
                f"instance.labels[{key[:80]!r}]: key and value may have at most {MAX_LABEL_SIZE} characters"
            )
    return instance


def _check_host(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # EDS carries addresses only (envoy.config.core.v3.SocketAddress)
        raise RequestError(f"instance.host: {host[:80]!r} is no IP address; give one (--address)") from None
    if address.is_unspecified or address.is_multicast:
        raise RequestError(f"instance.host: {host} cannot be reached by others; give a real address (--address)")


def check_lease(seconds: float) -> float:
    """The lease, with 0 as the default. Raises RequestError out of MIN_LEASE..MAX_LEASE."""
    if seconds == 0:
        return DEFAULT_LEASE
    if not MIN_LEASE <= seconds <= MAX_LEASE:
        raise RequestError(f"lease: {seconds:g} s is not in {MIN_LEASE:g} s..{MAX_LEASE:g} s")
    return seconds


@dataclass(slots=True)
class Lease:
    """An instance and when it goes (`deadline`, unless a heartbeat comes).

    `queued` is its entry in the heap.
    """

    instance: Instance
    seconds: float
    deadline: float
    queued: float


class Leases:
    """The table. Iterating gives the leases ordered by (service, id)."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, str], Lease] = {}
        self._heap: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Lease]:
        return iter([self._table[key] for key in sorted(self._table)])

    def register(self, instance: Instance, seconds: float, now: float) -> bool:
        """Grant or replace; True if the instance is new or differs from before.

        Raises FullError at MAX_INSTANCES.
        """
        deadline = now + seconds
        found = self._table.get(instance.key)
        if found is None:
            if len(self._table) >= MAX_INSTANCES:
                raise FullError(f"{MAX_INSTANCES} instances are registered, which is the bound")
            self._queue(Lease(instance, seconds, deadline, deadline))
            return True
        changed = found.instance != instance
        if deadline < found.queued:  # a shorter lease: the old entry would come up too late
            self._queue(Lease(instance, seconds, deadline, deadline))
        else:
            found.instance, found.seconds, found.deadline = instance, seconds, deadline
        return changed

    def heartbeat(self, service: str, instance_id: str, now: float) -> float | None:
        """Renew; the lease in seconds, or None if there is none (it has ended: register again)."""
        found = self._table.get((service, instance_id))
        if found is None or found.deadline <= now:
            return None
        found.deadline = now + found.seconds
        return found.seconds

    def deregister(self, service: str, instance_id: str) -> bool:
        """True if there was one. Its heap entry goes when it comes up."""
        return self._table.pop((service, instance_id), None) is not None

    def expire(self, now: float) -> list[Instance]:
        """Remove and return the instances whose deadline is at or before `now`."""
        gone: list[Instance] = []
        while self._heap and self._heap[0][0] <= now:
            queued, key = heapq.heappop(self._heap)
            lease = self._table.get(key)
            if lease is None or lease.queued != queued:
                continue  # deregistered or queued anew
            if lease.deadline <= now:
                del self._table[key]
                gone.append(lease.instance)
            else:
                lease.queued = lease.deadline
                heapq.heappush(self._heap, (lease.deadline, key))
        return gone

    def renew_all(self, now: float) -> None:
        """Give every instance a fresh lease: for a while nobody could be heard."""
        for lease in self._table.values():
            lease.deadline = now + lease.seconds

    def next_deadline(self) -> float | None:
        """When to call expire() next; may be early, never late. None: nothing can expire."""
        return self._heap[0][0] if self._heap else None

    def _queue(self, lease: Lease) -> None:
        self._table[lease.instance.key] = lease
        heapq.heappush(self._heap, (lease.queued, lease.instance.key))
        if len(self._heap) > 2 * len(self._table) + 64:  # mostly left-overs of instances that came and went
            self._heap = [(kept.queued, key) for key, kept in self._table.items()]
            heapq.heapify(self._heap)
