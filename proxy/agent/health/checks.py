"""Who is checked when, and what that makes of the endpoints of each cluster (the rules: policy/health_check.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import random

from proxy.agent.health.probe import Ill, Probe, Target, Transport, probe
from proxy.agent.metrics import Metrics
from proxy.config.cluster import Cluster, ClusterHealth, Endpoint
from proxy.config.health_check import EndpointHealthCheck, GrpcCheck, HealthCheck, HttpCheck
from proxy.config.model import Address, UpstreamTls
from proxy.config.snapshot import Snapshot
from proxy.policy.health_check import Checked
from proxy.worker import tls
from proxy.worker.channel import memfd

logger = logging.getLogger(__name__)

WARMING = 15.0
"""Seconds that a new cluster may hold back the configuration until each of its endpoints has been checked once."""

_DEFAULT = EndpointHealthCheck()


class _Checker:
    """One endpoint, and the task that checks it."""

    def __init__(self, owner: _ClusterChecks, endpoint: Endpoint, target: Target) -> None:
        self.endpoint = endpoint
        self.target = target
        self.health = Checked(owner.config)
        self.removed = False  # by discovery
        self._owner = owner
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        owner = self._owner
        await asyncio.sleep(random() * owner.config.initial_jitter)
        one: Probe | None = None
        try:
            while True:
                if one is None or one.target != self.target:
                    if one is not None:
                        one.close()
                    one = probe(self.target, owner.config)
                await self._check(one)
                await asyncio.sleep(self.health.delay(owner.traffic(), random))
        finally:
            if one is not None:
                one.close()

    async def _check(self, one: Probe) -> None:
        owner, health = self._owner, self.health
        owner.count("attempt")
        reason = ""
        try:
            await one.ask()
        except Ill as error:
            owner.count("failure")
            reason, changed = str(error), health.failed(not error.retriable)
        except Exception as error:
            if not isinstance(
                error, OSError
            ):  # a bug of ours says nothing of the endpoint, and must not end its checks
                logger.exception("checking %s", self.endpoint.address)
            owner.count("failure")
            owner.count("network_failure")
            reason, changed = str(error) or type(error).__name__, health.failed(False)
        else:
            owner.count("success")
            changed = health.passed()
            owner.passed(self.endpoint.address)
        if changed:
            if health.healthy:
                logger.info("healthy cluster=%s endpoint=%s", owner.name, self.endpoint.address)
            else:
                logger.warning("unhealthy cluster=%s endpoint=%s: %s", owner.name, self.endpoint.address, reason)
            owner.changed()


class _ClusterChecks:
    """One cluster's checks."""

    def __init__(self, parent: HealthChecks, name: str, config: HealthCheck, now: float) -> None:
        self.name = name
        self.config = config
        self.checkers: dict[Address, _Checker] = {}
        self.warm_by = now + min(WARMING, config.initial_jitter + config.timeout + 1.0)
        self.warm = False
        self._parent = parent

    def want(self, cluster: Cluster, endpoints: Mapping[Address, Endpoint], transport: Transport | None) -> None:
        """Check exactly these, and those that may stay although they are not listed any more."""
        stays = cluster.discovery != "STATIC" and not cluster.ignore_health_on_host_removal
        for address in [address for address in self.checkers if address not in endpoints]:
            checker = self.checkers[address]
            if stays and checker.health.healthy:
                checker.removed = True
            else:
                self._drop(address)
        for address, endpoint in endpoints.items():
            own = endpoint.health_check or _DEFAULT
            if own.disabled:
                self._drop(address)
                continue
            target = Target(
                address.host, own.port or self.config.alt_port or address.port, self._authority(own), transport
            )
            known = self.checkers.get(address)
            if known is None:
                self.checkers[address] = _Checker(self, endpoint, target)
            else:
                known.endpoint, known.target, known.removed = endpoint, target, False

    def _authority(self, own: EndpointHealthCheck) -> str:
        check = self.config.check
        given = check.host if isinstance(check, HttpCheck) else check.authority if isinstance(check, GrpcCheck) else ""
        return own.hostname or given or self.name

    def _drop(self, address: Address) -> None:
        checker = self.checkers.pop(address, None)
        if checker is not None:
            self._parent.end(checker.task)

    def stop(self) -> None:
        """Check nobody any more."""
        for address in list(self.checkers):
            self._drop(address)
        self._parent.metrics.gauge("health_check_healthy", 0, cluster=self.name)

    def result(self) -> ClusterHealth:
        """What is known now."""
        for address, checker in list(self.checkers.items()):
            if checker.removed and not checker.health.healthy:
                self._drop(address)
        checkers = self.checkers.items()
        failed = tuple(address for address, checker in checkers if not checker.health.healthy)
        self._parent.metrics.gauge("health_check_healthy", len(self.checkers) - len(failed), cluster=self.name)
        return ClusterHealth(
            self.name,
            failed,
            tuple(address for address, checker in checkers if checker.health.pending),
            tuple(checker.endpoint for _, checker in checkers if checker.removed),
        )

    def is_warm(self, now: float) -> bool:
        """Whether each endpoint has been checked once, or that has taken too long. Stays so."""
        if not self.warm:
            self.warm = now >= self.warm_by or not any(one.health.pending for one in self.checkers.values())
        return self.warm

    def traffic(self) -> bool:
        """Whether the cluster has ever had a connection."""
        return self._parent.metrics.value("upstream_cx_total", cluster=self.name) > 0

    def count(self, what: str) -> None:
        """Add to one of the counters."""
        self._parent.metrics.count(f"health_check_{what}_total", cluster=self.name)

    def passed(self, address: Address) -> None:
        """A check passed."""
        if self.checkers[address].health.healthy:
            self._parent.passed(self.name, address)

    def changed(self) -> None:
        """Something is known that was not."""
        self._parent.changed()


class HealthChecks:
    """All checks of a sidecar."""

    def __init__(self, changed: Callable[[], None], passed: Callable[[str, Address], None], metrics: Metrics) -> None:
        """`changed()`: `results` did; `passed(cluster, address)`: a check of a healthy endpoint passed."""
        self.changed, self.passed, self.metrics = changed, passed, metrics
        self._clusters: dict[str, _ClusterChecks] = {}
        self._keys = tls.Keys()
        self._transports: dict[object, Transport] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    def want(self, snapshot: Snapshot, keys: Mapping[str, bytes]) -> None:
        """Check what this consistent snapshot says. `keys`: PEM of chain and key of each certificate."""
        loop = asyncio.get_running_loop()
        before, self._clusters = self._clusters, {}
        transports: dict[object, Transport] = {}
        for name, cluster in snapshot.clusters.items():
            config = cluster.health_check
            if config is None:
                continue
            checks = before.pop(name, None)
            if checks is not None and checks.config != config:  # as in Envoy the cluster starts anew
                checks.stop()
                checks = None
            if checks is None:
                checks = _ClusterChecks(self, name, config, loop.time())
                self._later(checks.warm_by)
            self._clusters[name] = checks
            transport = self._transport(snapshot, keys, cluster, config, transports)
            endpoints = {one.address: one for one in snapshot.assignments[cluster.load_assignment].endpoints}
            checks.want(cluster, endpoints, transport)
        for checks in before.values():
            checks.stop()
        self._transports = transports
        self._keys.keep(snapshot.certificates)

    def results(self) -> dict[str, ClusterHealth]:
        """By cluster."""
        return {name: checks.result() for name, checks in self._clusters.items()}

    def warming(self) -> tuple[str, ...]:
        """Why a configuration with new clusters should wait, each as a sentence."""
        now = asyncio.get_running_loop().time()
        cold = [name for name, checks in self._clusters.items() if not checks.is_warm(now)]
        return tuple(f"cluster {name!r} waits for the first health check of its endpoints" for name in cold)

    async def stop(self) -> None:
        """Check nothing any more."""
        for timer in self._timers:
            timer.cancel()
        for checks in self._clusters.values():
            checks.stop()
        self._clusters = {}
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._keys.keep(())

    def end(self, task: asyncio.Task[None]) -> None:
        """End a checker's task."""
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _later(self, when: float) -> None:
        def now() -> None:
            self._timers.discard(timer)
            self.changed()

        timer = asyncio.get_running_loop().call_at(when, now)
        self._timers.add(timer)

    def _transport(
        self,
        snapshot: Snapshot,
        keys: Mapping[str, bytes],
        cluster: Cluster,
        config: HealthCheck,
        known: dict[object, Transport],
    ) -> Transport | None:
        """How the cluster's own connections are secured, with the ALPN that the check speaks."""
        if cluster.tls is None:
            return None
        up = _with_alpn(cluster.tls, config)
        certificate = snapshot.certificates[up.certificate] if up.certificate is not None else None
        bundle = snapshot.bundles[up.validation.trusted_ca] if up.validation is not None else None
        key = (up, certificate, bundle)
        transport = known.get(key) or self._transports.get(key)
        if transport is None:
            key_ids = {}
            if certificate is not None:
                key_ids[certificate.name] = certificate.key_id
                self._keys.put(certificate.name, certificate.key_id, memfd("health", keys[certificate.name]))
            context = tls.client_context(up, key_ids, snapshot.bundles, self._keys)
            transport = Transport(context, up.sni, tls.verifier(up.validation))
        known[key] = transport
        return transport


def _with_alpn(up: UpstreamTls, config: HealthCheck) -> UpstreamTls:
    check = config.check
    multiplexed = isinstance(check, GrpcCheck) or (isinstance(check, HttpCheck) and check.http2)
    names = config.alpn_protocols
    if not names:
        names = ("h2",) if multiplexed else tuple(name for name in up.alpn_protocols if name != "h2")
    return UpstreamTls(up.certificate, up.validation, up.sni, names)
