"""One cluster at run time: its endpoints, its picker, its limits and what is counted of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

from proxy.cluster.ejection import Ejections
from proxy.config.cluster import Cluster, LoadAssignment
from proxy.config.cluster import Endpoint as EndpointConfig
from proxy.config.model import Address
from proxy.policy import outlier
from proxy.policy.balance import Building, Picker, assemble
from proxy.policy.balance.latency import Latency
from proxy.policy.budget import Budget
from proxy.telemetry.counters import Counters


def building(config: Cluster, draw: Callable[[], float]) -> Building:
    """What a cluster's pickers are made of. Raises ValueError."""
    return Building(config.lb_policy, config.load_balancing, draw, monotonic)


class Endpoint:
    """One address that serves. `idle` are connections ready for use, newest last; `waiters` wait for one, oldest
    first; `connections` counts all, those being opened too. `failed`: so say its active health checks."""

    __slots__ = (
        "active",
        "address",
        "connecting",
        "connections",
        "failed",
        "health",
        "healthy",
        "healthy_enough",
        "hostname",
        "idle",
        "latency",
        "locality",
        "metadata",
        "removed",
        "since",
        "streams",
        "text",
        "waiters",
        "weight",
    )

    def __init__(self, config: EndpointConfig) -> None:
        self.address: Address = config.address
        self.text = str(config.address)
        self.take_over(config)
        self.failed = False
        self.active = 0
        self.connections = 0
        self.connecting = 0
        self.removed = False
        self.since = 0.0
        self.health = outlier.Health()
        self.latency = Latency()
        self.idle: dict[Any, None] = {}
        self.streams: Any = None  # the worker's connections of HTTP/2, once there are any
        self.waiters: OrderedDict[Any, None] = OrderedDict()  # a set in order: whoever gives up leaves in O(1)

    def take_over(self, config: EndpointConfig) -> None:
        """What a load assignment says of this address."""
        self.weight = config.weight
        self.healthy = config.healthy
        self.healthy_enough = config.degraded
        self.locality = config.locality
        self.metadata = config.metadata
        self.hostname = config.hostname.encode()

    @property
    def serving(self) -> bool:
        """Whether it is healthy, to all that is known here."""
        return self.healthy and not self.failed and not self.health.ejected_until

    @property
    def degraded(self) -> bool:
        """Whether it serves where those do not suffice."""
        return self.healthy_enough and not self.failed and not self.health.ejected_until


class ClusterState:
    """A cluster in service. Requests hold on to it; updates change it in place and swap its picker."""

    __slots__ = (
        "_building",
        "_overprovisioning",
        "active",
        "budget",
        "config",
        "connect_failures",
        "connections",
        "connections_total",
        "draw",
        "endpoints",
        "failed",
        "grpc_slots",
        "http2_transport",
        "idle_timeout",
        "kept",
        "latency",
        "max_requests",
        "max_requests_per_connection",
        "max_retries",
        "measured",
        "name",
        "outlier",
        "pending",
        "picker",
        "protocol",
        "requests",
        "retries",
        "retrying",
        "starved",
        "transport",
    )

    def __init__(self, config: Cluster, counters: Counters, draw: Callable[[], float]) -> None:
        name = config.name
        self.name = name
        self.outlier: Ejections | None = None
        self._take_over(config)
        self.draw = draw
        self.endpoints: dict[Address, Endpoint] = {}
        self.failed: frozenset[Address] = frozenset()  # by active health checks
        self.kept: tuple[EndpointConfig, ...] = ()  # what they keep in service though discovery has taken it out
        self._building = building(config, draw)
        self._overprovisioning = 140
        self.picker: Picker[Endpoint] = self._building.leaf(())
        self.transport: Any = None  # the worker's way to open a connection: its TLS
        self.http2_transport: Any = None  # the same for HTTP/2: with another ALPN
        self.active = 0
        self.budget = Budget(0.0)
        self.connections = 0
        self.pending = 0
        self.starved: dict[Endpoint, None] = {}  # whose waiters found no room for a connection, oldest first
        self.retrying = 0  # requests that are past their first try
        self.requests = counters.by_class("upstream_rq_total", cluster=name)
        self.retries = counters.slot("upstream_rq_retry_total", cluster=name)
        self.connections_total = counters.slot("upstream_cx_total", cluster=name)
        self.connect_failures = counters.slot("upstream_cx_connect_fail_total", cluster=name)
        self.latency = counters.histogram("upstream_rq_seconds", cluster=name)
        self.grpc_slots: dict[bytes, int] = {}

    def grpc_slot(self, counters: Counters, status: bytes) -> int:
        """Where gRPC calls with this status are counted; empty or no known one: "none"."""
        slot = self.grpc_slots.get(status)
        if slot is None:
            known = status.isdigit() and int(status) <= 16
            label = str(int(status)) if known else "none"
            slot = counters.slot("upstream_rq_grpc_total", cluster=self.name, grpc_status=label)
            if known:
                self.grpc_slots[status] = slot
        return slot

    def _take_over(self, config: Cluster) -> None:
        self.config = config
        detection, ejections = config.outlier_detection, self.outlier
        if detection is None:
            self.outlier = None
        elif ejections is None:
            self.outlier = Ejections(detection)
        else:
            ejections.configure(detection)
        self.protocol = config.protocol
        self.max_requests = config.circuit_breakers.max_requests
        self.max_retries = config.circuit_breakers.max_retries
        self.max_requests_per_connection = config.max_requests_per_connection
        self.idle_timeout = config.idle_timeout
        self.measured = config.lb_policy == "PEAK_EWMA"

    def enter(self, counters: Counters) -> None:
        """The cluster is in service from now on."""
        counters.gauge(lambda: self.active, "upstream_rq_active", cluster=self.name)
        counters.gauge(lambda: self.connections, "upstream_cx_active", cluster=self.name)
        counters.gauge(self.ejected, "outlier_detection_ejections_active", cluster=self.name)

    def configure(self, config: Cluster) -> None:
        """Take over a changed Cluster resource; endpoints and connections stay."""
        known = self.config
        rebuild = config.lb_policy != known.lb_policy or config.load_balancing != known.load_balancing
        if config.outlier_detection is None and self.outlier is not None:
            rebuild = rebuild or len(self.outlier.out) > 0
            for endpoint in self.endpoints.values():
                endpoint.health = outlier.Health()
        self._take_over(config)
        if rebuild:
            self._building = building(config, self.draw)
            self.rebuild()

    def assign(self, assignment: LoadAssignment) -> list[Endpoint]:
        """Take over a changed load assignment. Returns the endpoints that are gone: their idle connections are the
        caller's to close; requests in flight on them go on."""
        wanted = {config.address: config for config in assignment.endpoints}
        now = self._now()
        gone = [endpoint for address, endpoint in self.endpoints.items() if address not in wanted]
        for endpoint in gone:
            endpoint.removed = True
            if self.outlier is not None:
                self.outlier.out.pop(endpoint, None)
        endpoints: dict[Address, Endpoint] = {}
        for address, config in wanted.items():
            known = self.endpoints.get(address)
            well = known is not None and known.healthy and not known.failed
            if known is None:
                known = Endpoint(config)
            else:
                known.take_over(config)
            known.failed = address in self.failed
            if not well:
                known.since = now
            endpoints[address] = known
        self.endpoints = endpoints
        self._overprovisioning = assignment.overprovisioning_factor
        self.rebuild()
        return gone

    def check(self, failed: frozenset[Address]) -> None:
        """Take over what active health checks have found: these endpoints fail, the others do not."""
        changed = failed ^ self.failed
        now = self._now()
        self.failed = failed
        for address in changed:
            endpoint = self.endpoints.get(address)
            if endpoint is not None:
                endpoint.failed = address in failed
                endpoint.since = now
        if changed:
            self.rebuild()

    def _now(self) -> float:
        """The time for slow start, which is to spare who comes while others serve; 0 when nobody does."""
        return monotonic() if any(endpoint.serving for endpoint in self.endpoints.values()) else 0.0

    def ejected(self) -> int:
        """How many endpoints outlier detection keeps out of service now."""
        return len(self.outlier.out) if self.outlier is not None else 0

    def rebuild(self) -> None:
        """A new picker: the endpoints, or their health, have changed."""
        self.picker = assemble(self._building, list(self.endpoints.values()), self._overprovisioning)
