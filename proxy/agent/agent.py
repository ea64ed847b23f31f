"""The agent at work: puts the parts together, from the first configuration to the last request."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pillion.stdio import announce
from proxy.agent import dump, log
from proxy.agent.admin import Admin
from proxy.agent.errors import BindError, StartError
from proxy.agent.metrics import Metrics
from proxy.agent.options import MeshOptions, Options
from proxy.agent.sockets import bind_all, listen, listening_socket
from proxy.agent.state import State
from proxy.agent.supervisor import Supervisor
from proxy.config.model import Address
from proxy.config.snapshot import Snapshot
from proxy.worker.channel import Readmit, Stats

if TYPE_CHECKING:
    from proxy.agent.decode import Bootstrap
    from proxy.agent.mesh import Mesh

logger = logging.getLogger(__name__)

SETTLE = 30.0
"""Seconds that fresh workers have to put the first configuration in force."""


class Agent:
    """One sidecar. run() is its life."""

    def __init__(self, options: Options, worker_command: Sequence[str]) -> None:
        self.phase = "PRE_INITIALIZING"
        self.log_level = options.log_level
        self.metrics = Metrics()
        self.metrics.count("pillion_worker_restarts_total", 0)
        self.supervisor = Supervisor(
            options.workers,
            on_stats=self._stats,
            on_gone=self._worker_gone,
            log_level=log.standard(options.log_level),
            command=worker_command,
        )
        self.state = State(self._publish, self._check_passed, self.metrics)
        self._ejected: dict[int, dict[str, frozenset[Address]]] = {}  # by worker and cluster
        self._options = options
        self._mesh: Mesh | None = None
        self._source = str(options.bootstrap or "")
        self._node: dict[str, Any] = {}
        self._pushed = asyncio.Event()
        self._stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life -----

    async def run(self) -> int:
        """Serve until told to stop; returns the exit status. Raises StartError."""
        admin: Admin | None = None
        self._handle_signals()
        try:
            if self._options.mesh is not None:
                admin = self._start_mesh(self._options.mesh)
            elif self._options.bootstrap is not None:
                bootstrap = _load(self._options.bootstrap, self._options.allow_unsupported)
                admin = self._bootstrap_admin(bootstrap)
                self._start_static(bootstrap)
            self.spawn(self._announce(admin))
            status = await self._stop
            await self._wind_down()
            return status
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.state.stop()
            await self.supervisor.abandon()  # after an error there may be workers left
            if self._mesh is not None:
                await self._mesh.close()
            if admin is not None:
                await admin.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a part of the agent; if it fails, the agent does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._part_ended)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._stop.done():
            logger.error("a part of the agent failed while it stopped", exc_info=error)
        else:
            self._stop.set_exception(error)

    def _start_static(self, bootstrap: Bootstrap) -> None:
        for warning in bootstrap.warnings:
            logger.warning("%s", warning)
        self._node = {
            "id": bootstrap.node_id,
            "cluster": bootstrap.node_cluster,
            "metadata": bootstrap.node_metadata,
        }
        self.supervisor.reserve(list(bootstrap.snapshot.listeners.values()))
        self.supervisor.start()
        keys = {
            name: certificate.chain_pem.encode() + bootstrap.keys[name].pem
            for name, certificate in bootstrap.snapshot.certificates.items()
        }
        self.state.set_configuration(bootstrap.snapshot, dict(bootstrap.dns), keys)

    def _bootstrap_admin(self, bootstrap: Bootstrap) -> Admin | None:
        if self._options.admin_port is not None:
            port = bind_all({"--admin-port": ("127.0.0.1", self._options.admin_port)})["--admin-port"]
            listen(port, "--admin-port")
            return Admin(self, port)
        if bootstrap.admin is not None:
            return Admin(self, listening_socket(bootstrap.admin.host, bootstrap.admin.port, "admin"))
        return None

    def _mesh_ports(self, options: MeshOptions) -> Admin:
        """Bind before the join token is spent: whoever has to choose another port starts again with the same token.
        The addresses are those that the control plane's listeners will have."""
        ports = bind_all(
            {
                "--outbound-port": ("127.0.0.1", options.outbound_port),
                "--inbound-port": ("0.0.0.0", options.inbound_port),
                "--admin-port": ("127.0.0.1", self._options.admin_port or 0),
            }
        )
        admin = ports.pop("--admin-port")
        self.supervisor.sockets.reserve(ports.values())
        listen(admin, "--admin-port")
        return Admin(self, admin)

    def _start_mesh(self, options: MeshOptions) -> Admin:
        from proxy.agent.mesh import Mesh

        self._source = f"control plane {options.control_plane}"
        self._mesh = Mesh(options, self)
        admin = self._mesh_ports(options)
        self.supervisor.start()
        self._node = self._mesh.node_dump
        self.spawn(self._mesh.run())
        return admin

    async def _announce(self, admin: Admin | None) -> None:
        while True:
            await self._pushed.wait()
            self._pushed.clear()
            problem = await self.supervisor.settled(SETTLE)
            if problem is None:
                break
            if self._options.bootstrap is not None:
                raise StartError(f"{self._source}: not put in force: {problem}")
            logger.error("first configuration not in force: %s", problem)
        if self._stop.done() or self.phase == "DRAINING":
            return
        self.phase = "LIVE"
        listeners = ", ".join(
            f"{name} {self.supervisor.sockets.bound(str(listener.address))}"
            for name, listener in sorted(self.snapshot.listeners.items())
        )
        workers = "1 worker" if self._options.workers == 1 else f"{self._options.workers} workers"
        tail = f", admin {admin.address}" if admin is not None else ""
        announce(f"pillion proxy ready: {listeners}{tail}, {workers}")
        if self._mesh is not None:
            self._mesh.serving()

    async def _wind_down(self) -> None:
        self.phase = "DRAINING"
        logger.info("stopping drain_time=%gs", self._options.drain_time)
        if self._mesh is not None:
            await self._mesh.leave()
        await self.supervisor.stop(self._options.drain_time)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.done():
            logger.warning("%s again: not waiting any longer", number.name)
            self.supervisor.kill()
        else:
            logger.info("%s", number.name)
            self.quit()

    # ---- configuration -----

    def _publish(self, snapshot: Snapshot, keys: Mapping[str, bytes]) -> None:
        if self.supervisor.draining:
            return
        try:
            self.supervisor.push(snapshot, keys)
        except BindError as error:
            if self.phase == "PRE_INITIALIZING":
                if not self._stop.done():
                    self._stop.set_exception(error)
                return
            logger.error("configuration not in force, the one before stays: %s", error)
            self.state.publish_again()
            return
        logger.info(
            "configuration pushed listeners=%d routes=%d clusters=%d",
            len(snapshot.listeners),
            len(snapshot.routes),
            len(snapshot.clusters),
        )
        self._pushed.set()
        if self._mesh is not None:
            self._mesh.published()

    def _stats(self, pid: int, stats: Stats) -> None:
        self.metrics.add(pid, stats)
        self._ejected[pid] = {cluster: frozenset(addresses) for cluster, addresses in stats.ejected}

    def _check_passed(self, cluster: str, address: Address) -> None:
        """OutlierDetection.successful_active_health_check_uneject_host."""
        if address not in self.ejected.get(cluster, ()):
            return
        config = self.snapshot.clusters.get(cluster)
        detection = config.outlier_detection if config is not None else None
        if detection is not None and detection.successful_active_health_check_uneject_host:
            self.supervisor.tell(Readmit(cluster, address))

    def _worker_gone(self, pid: int) -> None:
        self.metrics.gone(pid)
        self._ejected.pop(pid, None)
        if not self.supervisor.draining:
            self.metrics.count("pillion_worker_restarts_total")

    # ---- admin -----

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force; empty before the first."""
        return self.supervisor.snapshot or Snapshot()

    @property
    def ejected(self) -> dict[str, frozenset[Address]]:
        """By cluster, the endpoints that outlier detection has ejected in at least one worker."""
        found: dict[str, frozenset[Address]] = {}
        for clusters in self._ejected.values():
            for name, addresses in clusters.items():
                found[name] = found.get(name, frozenset()) | addresses
        return found

    async def refresh(self) -> None:
        """Have the workers report now."""
        await self.supervisor.flush()

    async def scrape(self) -> bytes:
        """The metrics, with what the workers have counted up to now."""
        await self.refresh()
        return self.metrics.render()

    def config_dump(self) -> dict[str, Any]:
        """What /config_dump shows."""
        versions = self._mesh.versions() if self._mesh is not None else {}
        return dump.config_dump(self.snapshot, self._source, versions, self._node, self.state.waiting_for)

    def set_log_level(self, level: str) -> None:
        """Of the agent and every worker."""
        self.log_level = level
        log.set_level(level)
        self.supervisor.set_log_level(log.standard(level))

    def drain_listeners(self) -> None:
        """Stop accepting, out of the registry first; the agent stays."""
        if self.phase != "DRAINING":
            self.phase = "DRAINING"
            self.spawn(self._drain())

    async def _drain(self) -> None:
        if self._mesh is not None:
            await self._mesh.leave()
        self.supervisor.drain(self._options.drain_time)

    def quit(self) -> None:
        """Drain and exit 0."""
        if not self._stop.done():
            self._stop.set_result(0)


def _load(path: Path, allow_unsupported: bool) -> Bootstrap:
    from proxy.agent.decode import DecodeError, decode_bootstrap

    try:
        return decode_bootstrap(path.read_text(encoding="utf-8"), str(path), allow_unsupported)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"{path}: not UTF-8 text") from None
    except DecodeError as error:
        raise StartError(str(error)) from None
