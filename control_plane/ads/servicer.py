"""The AggregatedDiscoveryService over grpc.aio: authenticates, coalesces changes, carries the bytes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf.message import DecodeError

from control_plane.ads.stream import Counters, Request, Response, Stream, StreamError
from control_plane.auth import Authenticator, Context, Servicer, answered
from control_plane.compile import Client, ClientError, Compiler
from control_plane.errors import CredentialError, RefusedError, RequestError
from control_plane.snapshot import Snapshot, encode_nonce, short_type
from control_plane.state import MeshView
from pillion.v1 import mesh_pb2

log = logging.getLogger("control-plane")

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
DEBOUNCE = 0.005  # seconds from the first change until it is compiled; others in between ride along
FIRST_REQUEST_TIMEOUT = 15.0  # seconds
WRITE_TIMEOUT = 30.0  # seconds that a client may take until its connection accepts a response
MAX_NODE_ID = 256  # characters
SESSION_CHECK = 30.0  # seconds; no stream outlives its session by more


@dataclass(slots=True, eq=False)
class _Connection:
    node_id: str
    client: Client
    stream: Stream
    connected: float = field(default_factory=time.time)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class AdsServicer(Servicer):
    """Serves ADS for one mesh. Create it in the event loop; `close` ends its part in the mesh's changes."""

    def __init__(self, auth: Authenticator, on_auth_failure: Callable[[], None], mesh: MeshView) -> None:
        super().__init__(auth, on_auth_failure)
        self.counters = Counters()
        self._mesh = mesh
        self._compiler = Compiler(mesh.trust_domain)
        self._connections: set[_Connection] = set()
        self._kinds: Counter[Client] = Counter()  # of connections
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._compiler.update(mesh.services, mesh.instances)
        self._unsubscribe = mesh.subscribe(self._changed)

    def add_to_server(self, server: grpc.aio.Server) -> None:
        # Not the generated function: responses are bytes already, encoded once for all streams.
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(
                self.StreamAggregatedResources, DiscoveryRequest.FromString, None
            ),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(
                self.DeltaAggregatedResources, DeltaDiscoveryRequest.FromString, None
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def close(self) -> None:
        """Compile no more. Streams end with their server."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def streams(self) -> int:
        return len(self._connections)

    @property
    def pushes(self) -> Mapping[str, int]:
        """Responses sent, by type URL."""
        return self.counters.pushes

    @property
    def nacks(self) -> Mapping[str, int]:
        """Responses refused, by type URL."""
        return self.counters.nacks

    def proxies(self) -> list[mesh_pb2.ProxyStatus]:
        """What each connected client was sent and acknowledged, ordered by node id."""
        statuses = []
        for it in sorted(self._connections, key=lambda it: (it.node_id, it.connected)):
            document = self._mesh.services.get(it.client.service)
            status = mesh_pb2.ProxyStatus(
                node_id=it.node_id,
                service=it.client.service,
                protocol=document.service.protocol if document else "",
                resources=[
                    mesh_pb2.ResourceStatus(
                        type_url=of_type.type_url,
                        sent_version=of_type.sent_version,
                        acked_version=of_type.acked_version,
                        error=of_type.error,
                    )
                    for of_type in it.stream.status()
                ],
            )
            status.connected.FromNanoseconds(round(it.connected * 1e9))
            statuses.append(status)
        return statuses

    @answered
    async def StreamAggregatedResources(self, _: object, context: Context) -> None:
        service = self._auth.session(context.invocation_metadata() or ())
        try:
            async with asyncio.timeout(FIRST_REQUEST_TIMEOUT):
                first = await _read(context)
        except TimeoutError:
            raise RequestError(f"no request within {FIRST_REQUEST_TIMEOUT:g} s") from None
        if first is grpc.aio.EOF:
            return
        connection = self._identify(first.node, service)
        self._connections.add(connection)
        self._kinds[connection.client] += 1
        log.info("proxy connected node=%r service=%s", connection.node_id, service)
        try:
            await self._converse(connection, first, context)
        except StreamError as error:
            raise RequestError(str(error)) from error
        finally:
            self._connections.discard(connection)
            self._kinds[connection.client] -= 1
            if not self._kinds[connection.client]:
                del self._kinds[connection.client]
                self._compiler.forget(connection.client)
            log.info("proxy disconnected node=%r service=%s", connection.node_id, service)

    @answered
    async def DeltaAggregatedResources(self, _: object, context: Context) -> None:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "delta xDS is not served yet; use StreamAggregatedResources (in Envoy: ads_config.api_type GRPC)",
        )

    def _identify(self, node: Node, service: str) -> _Connection:
        try:
            client = Client.from_node(node)
        except ClientError as error:
            raise RequestError(str(error)) from error
        if client.service != service:
            raise RefusedError(
                f"this session is for the service {service!r}, not for node.cluster {client.service[:100]!r}"
            )
        if not node.id or len(node.id) > MAX_NODE_ID:
            raise RequestError(f"node.id: 1 to {MAX_NODE_ID} characters, such as {service}~1")
        snapshot = self._compiler.snapshot(client)
        _check(snapshot)
        return _Connection(node.id, client, Stream(snapshot, counters=self.counters))

    async def _converse(self, connection: _Connection, first: DiscoveryRequest, context: Context) -> None:
        reader = asyncio.create_task(self._read(connection, first, context))
        stream, wake = connection.stream, connection.wake
        check = self._loop.time() + SESSION_CHECK
        reader.add_done_callback(lambda _: wake.set())
        try:
            while not reader.done():
                for response in stream.responses(self._loop.time()):
                    await self._write(response, context)
                if self._loop.time() >= check:
                    check += SESSION_CHECK
                    if not self._has_session(context):
                        log.info("session over, stream ended node=%r", connection.node_id)
                        return  # the client comes back with the token it has now
                try:
                    async with asyncio.timeout_at(min(check, stream.deadline() or check)):
                        await wake.wait()
                except TimeoutError:
                    continue
                wake.clear()
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, connection: _Connection, first: DiscoveryRequest, context: Context) -> None:
        message = first
        while message is not grpc.aio.EOF:
            error = message.error_detail.message if message.HasField("error_detail") else None
            nack = connection.stream.receive(
                Request(
                    message.type_url,
                    message.resource_names,
                    message.version_info,
                    message.response_nonce,
                    error,
                )
            )
            if nack:
                kind = short_type(message.type_url)
                log.warning("refused by proxy node=%r type=%s reason=%r", connection.node_id, kind, nack)
            connection.wake.set()
            delay = connection.stream.throttle(self._loop.time())
            if delay:
                await asyncio.sleep(delay)  # what it sends meanwhile waits in its own flow-control window
            message = await _read(context)

    def _has_session(self, context: Context) -> bool:
        try:
            self._auth.session(context.invocation_metadata() or ())
        except CredentialError:
            return False
        return True

    async def _write(self, response: Response, context: Context) -> None:
        body = response.selection.encode(response.type_url) + encode_nonce(response.nonce)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await context.write(body)
        except TimeoutError:
            raise StreamError(f"a response was not taken within {WRITE_TIMEOUT:g} s") from None

    def _changed(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(DEBOUNCE, self._compile)

    def _compile(self) -> None:
        """Compile, and wake the streams whose snapshot is another one now. On an error all stays as it is."""
        self._timer = None
        try:
            self._compiler.update(self._mesh.services, self._mesh.instances)
            snapshots = {it.client: self._compiler.snapshot(it.client) for it in self._connections}
            for snapshot in list(snapshots.values())[:1]:  # the others differ in what refers to itself only
                _check(snapshot)
        except Exception:
            log.exception("the configuration could not be compiled; proxies keep the last one")
            return
        for connection in self._connections:
            snapshot = snapshots[connection.client]
            if snapshot is not connection.stream.snapshot:
                connection.stream.update(snapshot)
                connection.wake.set()


async def _read(context: Context) -> Any:
    try:
        return await context.read()
    except DecodeError:
        raise RequestError("a message is not a DiscoveryRequest") from None


def _check(snapshot: Snapshot) -> None:
    problems = snapshot.consistent()
    if problems:
        raise RuntimeError("; ".join(problems[:5]))
