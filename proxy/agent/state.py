"""From many sources to one consistent snapshot. A source changes whenever it likes; the workers see whole states.

What refers to something that has not come yet waits (Envoy calls it warming), and the snapshot in force stays. A
cluster, a load assignment or a route configuration that does not come for 15 s counts as empty: one route to a cluster
that does not exist then answers 503, and holds nothing else back. A certificate or its roots are always waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from proxy.agent.dns import Resolver, is_name, resolved
from proxy.agent.metrics import Metrics
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.model import Address, TlsCertificate, TrustBundle
from proxy.config.route import RouteConfiguration
from proxy.config.snapshot import Snapshot, consistent, diff

if TYPE_CHECKING:
    from proxy.agent.health.checks import HealthChecks

logger = logging.getLogger(__name__)

DEBOUNCE = 0.010
"""Seconds that a change waits for others."""
FETCH_TIMEOUT = 15.0
"""Seconds after which a missing resource counts as empty (Envoy's initial_fetch_timeout)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the sidecar's own SVID brings into the snapshot. `pem` is chain and key."""

    certificate: TlsCertificate
    bundle: TrustBundle
    pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sources:
    """What is known now. `snapshot` comes from a file or from xDS; `dns` maps a STRICT_DNS cluster's load assignment
    to endpoints whose host may be a name; `keys` maps a certificate's name to the PEM of chain and key."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    dns: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    identity: Identity | None = None


def assemble(
    sources: Sources, answers: Mapping[str, tuple[str, ...]], empty: frozenset[tuple[str, str]] = frozenset()
) -> Snapshot:
    """One snapshot out of everything. `empty`: (kind, name) of resources that are not waited for any more."""
    snapshot = sources.snapshot
    assignments = dict(snapshot.assignments)
    for name, endpoints in sources.dns.items():
        found = resolved(LoadAssignment(name, endpoints), answers)
        if found is not None:
            assignments[name] = found
        else:
            assignments.pop(name, None)
    routes, clusters = dict(snapshot.routes), dict(snapshot.clusters)
    for kind, name in empty:
        if kind == "clusters" and name not in clusters:
            clusters[name] = Cluster(name, "STATIC", name)
        if kind in ("clusters", "assignments"):
            assignments.setdefault(name, LoadAssignment(name, ()))
        else:
            routes.setdefault(name, RouteConfiguration(name, ()))
    certificates, bundles = dict(snapshot.certificates), dict(snapshot.bundles)
    if sources.identity is not None:
        certificates[sources.identity.certificate.name] = sources.identity.certificate
        bundles[sources.identity.bundle.name] = sources.identity.bundle
    return replace(
        snapshot,
        clusters=clusters,
        assignments=assignments,
        routes=routes,
        certificates=certificates,
        bundles=bundles,
    )


def missing(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """(kind, name) of every cluster, load assignment and route configuration that is referred to and not there."""
    chains = [listener.filter_chain for listener in snapshot.listeners.values()]
    managers = [chain.http for chain in chains if chain.http is not None]
    inline = (manager.route_config for manager in managers if manager.route_config is not None)
    named = {name for table in (*snapshot.routes.values(), *inline) for name in table.clusters()}
    named |= {cluster.name for chain in chains if chain.tcp is not None for cluster in chain.tcp.clusters}
    clusters = (("clusters", name) for name in named - snapshot.clusters.keys())
    assignments = (
        ("assignments", cluster.load_assignment)
        for cluster in snapshot.clusters.values()
        if cluster.load_assignment not in snapshot.assignments
    )
    routes = (("routes", manager.rds) for manager in managers if manager.rds not in snapshot.routes)
    return frozenset((kind, name) for kind, name in (*clusters, *assignments, *routes) if name is not None)


class Warming:
    """Since when each missing resource is missing. `now` is an argument."""

    def __init__(self, limit: float = FETCH_TIMEOUT) -> None:
        self._limit = limit
        self._since: dict[tuple[str, str], float] = {}

    def update(self, absent: frozenset[tuple[str, str]], now: float) -> frozenset[tuple[str, str]]:
        """Note what is missing at `now`; returns those that have been for too long."""
        self._since = {key: self._since.get(key, now) for key in absent}
        return frozenset(key for key, since in self._since.items() if now - since >= self._limit)

    def next(self, now: float) -> float | None:
        """Seconds until the next one has been missing for too long; None: none is about to."""
        ends = [since + self._limit - now for since in self._since.values() if since + self._limit > now]
        return min(ends, default=None)


class State:
    """Collects the sources and publishes what they add up to, when it is consistent and differs from the last."""

    def __init__(
        self,
        publish: Callable[[Snapshot, Mapping[str, bytes]], None],
        passed: Callable[[str, Address], None] = lambda _cluster, _address: None,
        metrics: Metrics | None = None,
    ) -> None:
        """`publish(snapshot, keys)`: keys has the PEM of chain and key of each certificate. `passed(cluster, address)`
        is told of each active health check that a healthy endpoint passed; `metrics` counts them."""
        self.waiting_for: tuple[str, ...] = ()
        self._publish = publish
        self._sources = Sources()
        self._configured = False
        self._resolver = Resolver(self._dirty)
        self._passed, self._metrics = passed, metrics or Metrics()
        self._health: HealthChecks | None = None
        self._warming = Warming()
        self._empty: frozenset[tuple[str, str]] = frozenset()
        self._published: Snapshot | None = None
        self._due: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None

    def set_configuration(
        self, snapshot: Snapshot, dns: Mapping[str, tuple[Endpoint, ...]], keys: Mapping[str, bytes]
    ) -> None:
        """Everything that a file or the control plane says, replacing what it said before."""
        self._sources = replace(self._sources, snapshot=snapshot, dns=dns, keys=keys)
        self._configured = True
        self._resolver.want(_names(dns.values()))
        self._dirty()

    def set_identity(self, identity: Identity) -> None:
        """The sidecar's own certificate and the mesh's bundle."""
        self._sources = replace(self._sources, identity=identity)
        self._dirty()

    def publish_again(self) -> None:
        """The last one was not taken: offer it again with the next change."""
        self._published = None

    async def stop(self) -> None:
        """Publish nothing any more."""
        for timer in (self._due, self._overdue):
            if timer is not None:
                timer.cancel()
        await self._resolver.stop()
        if self._health is not None:
            await self._health.stop()

    def _checks(self) -> HealthChecks:
        if self._health is None:
            from proxy.agent.health.checks import HealthChecks  # a sidecar without checks does not pay for them

            self._health = HealthChecks(self._dirty, self._passed, self._metrics)
        return self._health

    def _dirty(self) -> None:
        # An identity alone is nothing to serve.
        if self._configured and self._due is None:
            self._due = asyncio.get_running_loop().call_later(DEBOUNCE, self._settle)

    def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = None
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        absent = missing(assemble(self._sources, self._resolver.answers))
        too_late = self._warming.update(absent, loop.time())
        if (delay := self._warming.next(loop.time())) is not None:
            self._overdue = loop.call_later(delay + 0.001, self._settle)
        for kind, name in sorted(too_late - self._empty):
            logger.warning("%s %r did not come for %gs and counts as empty", kind, name, FETCH_TIMEOUT)
        self._empty = too_late
        snapshot = assemble(self._sources, self._resolver.answers, too_late)
        problems = tuple(consistent(snapshot))
        if problems:
            if problems != self.waiting_for:
                logger.debug("configuration waits: %s%s", problems[0], _more(len(problems)))
            self.waiting_for = problems
            return
        keys = dict(self._sources.keys)
        if self._sources.identity is not None:
            keys[self._sources.identity.certificate.name] = self._sources.identity.pem
        if self._health is not None or any(c.health_check is not None for c in snapshot.clusters.values()):
            health = self._checks()
            health.want(snapshot, keys)
            self.waiting_for = health.warming()
            if self.waiting_for:
                return
            snapshot = replace(snapshot, health=health.results())
        self.waiting_for = ()
        if self._published is not None and not diff(self._published, snapshot):
            return
        self._published = snapshot
        self._publish(snapshot, keys)


def _names(groups: Iterable[tuple[Endpoint, ...]]) -> frozenset[str]:
    return frozenset(e.address.host for group in groups for e in group if is_name(e.address.host))


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
