"""A sidecar as a member of a mesh: identity, xDS and registration around one channel to the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from pillion.client import TokenFile, aio_channel, another_mesh, is_another_mesh, spiffe_id
from pillion.v1 import mesh_pb2
from proxy.agent.errors import StartError
from proxy.agent.identity import Identity
from proxy.agent.metrics import Metrics
from proxy.agent.options import MeshOptions
from proxy.agent.registration import Registration, local_address_towards
from proxy.agent.state import Identity as SnapshotIdentity
from proxy.agent.state import State
from proxy.agent.state_dir import StateDir
from proxy.agent.supervisor import Supervisor
from proxy.agent.svid import Svid
from proxy.agent.xds.client import AdsClient, make_node
from proxy.agent.xds.protocol import CDS, EDS, LDS, RDS, Ads, Decoded, Refused
from proxy.agent.xds.resources import decode
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.listener import Listener
from proxy.config.route import RouteConfiguration
from proxy.config.snapshot import Snapshot

if TYPE_CHECKING:
    import grpc.aio

    from proxy.agent.decode.cds import DecodedCluster

logger = logging.getLogger(__name__)

SAVE_SHARE = 20.0
"""Writing the configuration takes at most one part in this many of the agent's time; what comes sooner waits."""


class Host(Protocol):
    """What the mesh needs of the agent."""

    metrics: Metrics
    supervisor: Supervisor
    state: State
    phase: str

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a part of the agent."""


class Mesh:
    """Feeds the agent's state from the control plane."""

    def __init__(self, options: MeshOptions, host: Host) -> None:
        """Reads the token file and makes the state directory. Raises StartError."""
        self._options, self._host = options, host
        self._token = _token(options)
        try:
            self._state_dir = StateDir(options.state_dir)
        except OSError as error:
            raise StartError(f"--state-dir {options.state_dir}: {error.strerror}") from None
        self._channel = aio_channel(options.control_plane, self._token.roots_pem)
        self._identity = Identity(self._token, self._channel, self._state_dir, self._identified, explain=self._explain)
        metadata: dict[str, Any] = {
            "service": options.service,
            "instance": options.instance,
            "app_port": options.app_port,
            "inbound_port": options.inbound_port,
            "outbound_port": options.outbound_port,
            "labels": dict(options.labels),
            "pillion": True,
        }
        self.node_dump = {"id": options.node_id, "cluster": options.service, "metadata": metadata}
        # What a configuration depends on: one for other ports or another mesh is not to be started from.
        depends_on = ("service", "app_port", "inbound_port", "outbound_port")
        self._made_for = {**{key: metadata[key] for key in depends_on}, "trust_domain": self._token.trust_domain}
        self._ads = Ads(decode, self._check)
        self._client = AdsClient(
            self._ads,
            self._channel,
            make_node(options.node_id, options.service, metadata),
            lambda: self._identity.session_token,
            self._identity.token_refused,
            self._configured,
            host.metrics,
            explain=self._explain,
        )
        self._registration: Registration | None = None
        self._registering: asyncio.Task[None] | None = None
        self._save: asyncio.TimerHandle | None = None
        self._save_next = 0.0

    async def run(self) -> None:
        """Get the identity, then follow the control plane for ever. Raises StartError when it refuses us."""
        self._lock_state_dir()
        self._restore_configuration()
        if not self._identity.restore():
            await self._identity.join(patient=bool(self._ads.resources(LDS)))  # what is restored may be in use
        self._host.spawn(self._identity.keep_fresh())
        await self._client.run()

    def serving(self) -> None:
        """The first configuration is in force: from now on others may send requests here."""
        self._host.spawn(self._register())

    def published(self) -> None:
        """A configuration was pushed: keep it for a restart."""
        if self._save is None:
            delay = max(0.0, self._save_next - time.monotonic())
            self._save = asyncio.get_running_loop().call_later(delay, self._save_configuration)

    async def leave(self) -> None:
        """Out of the registry, before requests are refused."""
        if self._registering is not None:
            self._registering.cancel()
            await asyncio.gather(self._registering, return_exceptions=True)
        if self._registration is not None:
            await self._registration.leave()

    async def close(self) -> None:
        """Let go of the control plane."""
        if self._registering is not None:
            self._registering.cancel()
        if self._save is not None:
            self._save.cancel()
            self._save_configuration()
        await self._channel.close()
        self._state_dir.close()

    def versions(self) -> dict[str, str]:
        """The accepted xDS versions by kind of the snapshot."""
        kinds = {"clusters": CDS, "assignments": EDS, "listeners": LDS, "routes": RDS}
        return {kind: self._ads.version(type_url) for kind, type_url in kinds.items()}

    def _explain(self, error: grpc.aio.AioRpcError) -> str:
        if is_another_mesh(error.details()):
            return another_mesh(self._options.control_plane, self._options.token_file)
        return f"{error.code().name}: {error.details()}"

    # ---- news -----

    def _identified(self, svid: Svid) -> None:
        self._host.metrics.gauge("certificate_expiration_timestamp_seconds", svid.expires)
        self._host.state.set_identity(SnapshotIdentity(svid.certificate(), svid.bundle(), svid.pem()))

    def _configured(self) -> None:
        if not self._ads.complete and not self._ads.resources(LDS):
            return  # a sidecar without listeners is not a configuration to start with
        snapshot, dns = to_snapshot(self._ads)
        self._host.state.set_configuration(snapshot, dns, {})

    def _check(self, type_url: str, resources: Sequence[Decoded]) -> Mapping[str, str]:
        """Bind for listeners. One whose port is taken is refused, and does not keep the others from serving."""
        if type_url != LDS:
            return {}
        listeners = [r.value for r in resources if isinstance(r.value, Listener)]
        refused = {it.name: problem for it in listeners if (problem := self._hides_app(it))}
        usable = [listener for listener in listeners if listener.name not in refused]
        try:
            self._host.supervisor.reserve(usable)
        except StartError as error:
            taken = self._unbindable(usable)
            if len(taken) == len(usable):
                if self._host.phase == "PRE_INITIALIZING":
                    raise  # there is nothing in force to go on with
                raise Refused(str(error)) from None
            refused.update(taken)
        return refused

    def _hides_app(self, listener: Listener) -> str:
        port = self._options.app_port
        if listener.address.port != port:
            return ""
        return f"listener {listener.name!r}: cannot listen on {listener.address}: {port} is the app's own (--app-port)"

    def _unbindable(self, listeners: Sequence[Listener]) -> dict[str, str]:
        """Which of them cannot be bound, and why. The others are."""
        refused: dict[str, str] = {}
        usable: list[Listener] = []
        for listener in listeners:
            try:
                self._host.supervisor.reserve([*usable, listener])
            except StartError as error:
                refused[listener.name] = str(error)
            else:
                usable.append(listener)
        return refused

    def _lock_state_dir(self) -> None:
        path = self._options.state_dir
        try:
            self._state_dir.lock()
        except BlockingIOError:
            raise StartError(
                f"--state-dir {path}: in use by another sidecar; give this one another --instance (or --state-dir)"
            ) from None
        except OSError as error:
            raise StartError(f"--state-dir {path}: {error.strerror}") from None

    def _restore_configuration(self) -> None:
        saved = self._state_dir.load_configuration()
        if saved is None:
            return
        if saved.get("made_for") != self._made_for:
            logger.info("cached configuration not used: it was made for another service or other ports")
            return
        try:
            self._ads.restore(saved["resources"])
        except (Refused, ValueError, TypeError, AttributeError, KeyError) as error:
            logger.warning("cached configuration not used: %s", error)
            return
        logger.info("configuration restored listeners=%d", len(self._ads.resources(LDS)))
        self._configured()

    def _save_configuration(self) -> None:
        self._save = None
        started = time.monotonic()
        try:
            self._state_dir.save_configuration({"made_for": self._made_for, "resources": self._ads.dump()})
        except OSError as error:
            logger.error("configuration not cached: %s", error)
        now = time.monotonic()
        self._save_next = now + (now - started) * SAVE_SHARE

    async def _register(self) -> None:
        self._registering = asyncio.current_task()
        host = self._options.address
        while host is None:
            with contextlib.suppress(OSError):
                host = local_address_towards(self._options.control_plane)
            if host is None:
                await asyncio.sleep(1.0)
        instance = mesh_pb2.Instance(
            service=self._options.service,
            id=self._options.instance,
            host=host,
            port=self._options.inbound_port,
            labels=dict(self._options.labels),
        )
        self._registration = Registration(
            instance,
            self._options.app_port,
            self._channel,
            lambda: self._identity.session_token,
            self._identity.token_refused,
            self._explain,
        )
        await self._registration.run()


def to_snapshot(ads: Ads) -> tuple[Snapshot, dict[str, tuple[Endpoint, ...]]]:
    """What xDS says as a snapshot, and the host names that are still to be resolved, by load assignment."""
    clusters: dict[str, Cluster] = {}
    assignments: dict[str, LoadAssignment] = {}
    dns: dict[str, tuple[Endpoint, ...]] = {}
    for name, resource in ads.resources(CDS).items():
        found = cast("DecodedCluster", resource.decoded.value)
        clusters[name] = found.cluster
        if found.assignment is not None:
            assignments[found.cluster.load_assignment] = found.assignment
        elif found.dns:
            dns[found.cluster.load_assignment] = found.dns
    for name, resource in ads.resources(EDS).items():
        assignments[name] = cast(LoadAssignment, resource.decoded.value)
    listeners: dict[str, Listener] = {}
    for name, resource in ads.resources(LDS).items():
        listeners[name] = cast(Listener, resource.decoded.value)
    routes: dict[str, RouteConfiguration] = {}
    for name, resource in ads.resources(RDS).items():
        routes[name] = cast(RouteConfiguration, resource.decoded.value)
    return Snapshot(listeners=listeners, routes=routes, clusters=clusters, assignments=assignments), dns


def _token(options: MeshOptions) -> TokenFile:
    try:
        token = TokenFile.load(options.token_file)
    except (OSError, ValueError) as error:
        raise StartError(f"--token-file: {error}") from None
    if token.service != options.service:
        raise StartError(
            f"--token-file {options.token_file}: is for {token.identity}, not for "
            f"{spiffe_id(token.trust_domain, options.service)}; make one with: pillion token {options.service}"
        )
    return token
