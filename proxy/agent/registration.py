"""Keeps this instance in the registry exactly while its application can be reached through this sidecar."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from enum import Enum

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from pillion.client import bearer
from pillion.v1 import mesh_pb2, mesh_pb2_grpc

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds that the registry is asked to keep the instance without hearing from it."""
PROBE_INTERVAL = 1.0
"""Seconds between two looks at the application's port."""
PROBE_TIMEOUT = 1.0
RPC_TIMEOUT = 2.0
"""Seconds for one call to the registry."""
FAILURES = 2
"""Probes that must fail in a row before the application counts as gone."""


class Do(Enum):
    """What to tell the registry."""

    NOTHING = 0
    REGISTER = 1
    HEARTBEAT = 2
    DEREGISTER = 3


class Registrar:
    """What to do, given what was seen. No I/O; times are seconds of any one clock."""

    def __init__(self, lease: float = LEASE) -> None:
        self.registered = False
        self._lease = lease
        self._failures = 0
        self._next = 0.0

    def probed(self, now: float, app_accepts: bool) -> Do:
        """The application's port was probed; what now?"""
        self._failures = 0 if app_accepts else self._failures + 1
        if self.registered and self.app_gone:
            return Do.DEREGISTER
        if now < self._next:
            return Do.NOTHING
        if self.registered:
            return Do.HEARTBEAT
        return Do.REGISTER if app_accepts else Do.NOTHING

    @property
    def app_gone(self) -> bool:
        """Whether the application counts as gone (or as not there yet)."""
        return self._failures >= FAILURES

    def done(self, now: float, lease: float) -> None:
        """The registry took a registration or a heartbeat, for `lease` seconds."""
        self.registered = True
        self._lease = lease
        self._next = now + lease / 3

    def failed(self, now: float) -> None:
        """The registry was not reached: try again soon, the lease is running."""
        self._next = now + min(PROBE_INTERVAL, self._lease / 6)

    def unknown(self, now: float) -> None:
        """The registry does not have us: the lease ended, or we left."""
        self.registered = False
        self._next = now


class Registration:
    """Probes the application and talks to the registry until cancelled."""

    def __init__(
        self,
        instance: mesh_pb2.Instance,
        app_port: int,
        channel: grpc.aio.Channel,
        session_token: Callable[[], str],
        token_refused: Callable[[], None],
        explain: Callable[[grpc.aio.AioRpcError], str] = str,
    ) -> None:
        self._instance, self._app_port = instance, app_port
        self._session_token, self._token_refused = session_token, token_refused
        self._explain = explain
        self._stub = mesh_pb2_grpc.RegistryStub(channel)
        self._registrar = Registrar()
        self._complained = False
        self._asked = False
        self._app_gone = False
        self._app_seen = False

    async def run(self) -> None:
        """Keep the registry right for ever."""
        loop = asyncio.get_running_loop()
        while True:
            accepts = await accepts_connections(self._app_port)
            do = self._registrar.probed(loop.time(), accepts)
            self._tell(accepts)
            await self._carry_out(do)
            await asyncio.sleep(PROBE_INTERVAL)

    async def leave(self) -> None:
        """Take the instance out, if it may be in; gives up after a second."""
        if not self._asked:
            return
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._deregister(timeout=1.0)

    def _tell(self, accepts: bool) -> None:
        """Log once that the application is not there, and once that it is (again)."""
        if self._registrar.app_gone and not self._app_gone:
            self._app_gone = True
            what = "the application is gone, waiting for it" if self._app_seen else "waiting for the application"
            logger.warning("%s on 127.0.0.1:%d; not registered until it accepts", what, self._app_port)
        elif accepts and self._app_gone:
            self._app_gone = False
            logger.info("the application accepts on 127.0.0.1:%d", self._app_port)
        self._app_seen = self._app_seen or accepts

    async def _carry_out(self, do: Do) -> None:
        loop = asyncio.get_running_loop()
        try:
            match do:
                case Do.REGISTER:
                    request = mesh_pb2.RegisterRequest(instance=self._instance)
                    request.lease.FromNanoseconds(int(LEASE * 1e9))
                    self._asked = True
                    answer = await self._stub.Register(
                        request, metadata=bearer(self._session_token()), timeout=RPC_TIMEOUT
                    )
                    self._registrar.done(loop.time(), _seconds(answer.lease))
                    i = self._instance
                    logger.info("instance registered service=%s id=%s address=%s:%d", i.service, i.id, i.host, i.port)
                case Do.HEARTBEAT:
                    beat = await self._stub.Heartbeat(
                        mesh_pb2.HeartbeatRequest(service=self._instance.service, id=self._instance.id),
                        metadata=bearer(self._session_token()),
                        timeout=RPC_TIMEOUT,
                    )
                    self._registrar.done(loop.time(), _seconds(beat.lease))
                case Do.DEREGISTER:
                    await self._deregister(RPC_TIMEOUT)
                    logger.info("instance taken out service=%s id=%s", self._instance.service, self._instance.id)
            self._complained = self._complained and do is Do.NOTHING
        except grpc.aio.AioRpcError as error:
            self._failed(do, error)
        except Exception:  # no answer of a control plane may take the sidecar down
            self._registrar.failed(loop.time())
            logger.exception("registry: %s failed", do.name.lower())

    async def _deregister(self, timeout: float) -> None:  # noqa: ASYNC109  # it is the call's deadline
        request = mesh_pb2.DeregisterRequest(service=self._instance.service, id=self._instance.id)
        await self._stub.Deregister(request, metadata=bearer(self._session_token()), timeout=timeout)
        self._registrar.unknown(asyncio.get_running_loop().time())

    def _failed(self, do: Do, error: grpc.aio.AioRpcError) -> None:
        now = asyncio.get_running_loop().time()
        if error.code() == grpc.StatusCode.NOT_FOUND and do in (Do.HEARTBEAT, Do.DEREGISTER):
            self._registrar.unknown(now)
            return
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            self._token_refused()
        self._registrar.failed(now)
        if not self._complained:  # once an outage
            logger.warning("registry: %s failed: %s", do.name.lower(), self._explain(error))
            self._complained = True


async def accepts_connections(port: int) -> bool:
    """Whether something on 127.0.0.1 accepts at `port`."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def local_address_towards(target: str) -> str:
    """The local IP address from which packets go to host:port. Sends nothing. Raises OSError."""
    host, _, port = target.rpartition(":")
    for family, kind, _proto, _name, address in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    raise OSError(f"no address for {host}")


def _seconds(duration: Duration) -> float:
    return max(1.0, duration.seconds + duration.nanos / 1e9)
