"""A grpcio ADS client over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import grpc.aio
import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse

from control_plane.ads import servicer as servicer_module
from control_plane.errors import CredentialError
from control_plane.leases import Instance
from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE
from tests.support.ads_server import MESH, EveryToken, Mesh, serve

CART_1 = Instance("cart", "1", "127.0.0.1", 15006, {"version": "v1"})
CART_2 = Instance("cart", "2", "127.0.0.1", 15007, {"version": "v2"})
CLUSTERS = {"cart", "cart|v1", "cart|v2", "inbound", "payments"}


class Client:
    """Acknowledges what it gets, and subscribes as a sidecar does."""

    def __init__(self, port: int, service: str = "cart") -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
        self.stub = AggregatedDiscoveryServiceStub(self.channel)
        self.service = service

    async def __aenter__(self) -> Client:
        metadata = (("authorization", f"Bearer {self.service}"),)
        self.call = self.stub.StreamAggregatedResources(metadata=metadata, timeout=30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self.channel.close()

    async def ask(self, type_url: str, *names: str, **fields: object) -> None:
        request = DiscoveryRequest(type_url=type_url, resource_names=names)
        for key, value in fields.items():
            setattr(request, key, value)
        request.node.id, request.node.cluster = f"{self.service}~1", self.service
        request.node.metadata.update({"app_port": 8080, "outbound_port": 0, "inbound_port": 0})
        await self.call.write(request)

    async def take(self, type_url: str, *names: str, error: str = "") -> DiscoveryResponse:
        """The next response, which must be of this type; acknowledged (or refused) with these names."""
        response = await self.call.read()
        assert isinstance(response, DiscoveryResponse), await self.call.details()
        assert response.type_url == type_url
        answer = DiscoveryRequest(
            type_url=type_url,
            resource_names=names,
            response_nonce=response.nonce,
            version_info=response.version_info,
        )
        if error:
            answer.error_detail.message = error
        await self.call.write(answer)
        return response


def names(response: DiscoveryResponse) -> set[str]:
    return {str(any_pb.value) and _name(any_pb) for any_pb in response.resources}


def _name(packed) -> str:
    from google.protobuf import symbol_database

    from control_plane import compile as _  # noqa: F401  registers the message types

    message = symbol_database.Default().GetSymbol(packed.type_url.rpartition("/")[2])()
    packed.Unpack(message)
    return getattr(message, "name", "") or message.cluster_name


async def test_a_client_gets_everything_and_then_only_what_changes() -> None:
    view = Mesh()
    view.apply(MESH)
    view.register(CART_1)
    async with serve(view) as (port, servicer), Client(port) as client:
        await client.ask(CLUSTER)
        assert names(await client.take(CLUSTER)) == CLUSTERS
        assigned = sorted(CLUSTERS - {"inbound"})
        await client.ask(ENDPOINT, *assigned)
        assert names(await client.take(ENDPOINT, *assigned)) == set(assigned)
        await client.ask(LISTENER)
        assert names(await client.take(LISTENER)) == {"inbound", "outbound"}
        await client.ask(ROUTE, "outbound")
        assert names(await client.take(ROUTE, "outbound")) == {"outbound"}

        view.register(CART_1, CART_2)
        started = time.monotonic()
        response = await client.take(ENDPOINT, *assigned)
        assert time.monotonic() - started < 1
        by_name = {_name(it): ClusterLoadAssignment.FromString(it.value) for it in response.resources}
        assert [len(locality.lb_endpoints) for locality in by_name["cart"].endpoints] == [2]
        assert [len(locality.lb_endpoints) for locality in by_name["cart|v2"].endpoints] == [1]
        assert not by_name["payments"].endpoints

        view.apply(MESH + "---\nkind: Service\nname: search\n")
        assert names(await client.take(CLUSTER)) == {*CLUSTERS, "search"}
        await client.ask(ENDPOINT, *assigned, "search", response_nonce=response.nonce)
        await client.take(ENDPOINT, *assigned, "search")
        await client.take(ROUTE, "outbound")
        view.apply(MESH)
        await client.take(ROUTE, "outbound")
        assert names(await client.take(CLUSTER)) == CLUSTERS
        (status,) = servicer.proxies()
        assert (status.node_id, status.service, status.protocol) == ("cart~1", "cart", "http")
        assert len(status.resources) == 4


async def test_a_nack_is_seen_in_the_status() -> None:
    view = Mesh()
    view.apply(MESH)
    async with serve(view) as (port, servicer), Client(port) as client:
        await client.ask(CLUSTER)
        refused = await client.take(CLUSTER, error="cluster cart: no")
        view.register(CART_1)
        view.apply(MESH.replace("payments", "billing"))
        await client.take(CLUSTER, error="still no")
        await client.ask(LISTENER, "unknown")  # read after the NACK, as requests keep their order
        while servicer.nacks.get(CLUSTER) != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (of_type,) = (it for it in servicer.proxies()[0].resources if it.type_url == CLUSTER)
        assert (of_type.error, of_type.acked_version) == ("still no", "")
        assert of_type.sent_version != refused.version_info


async def test_streams_share_the_bytes() -> None:
    view = Mesh()
    view.apply(MESH)
    async with serve(view) as (port, servicer), Client(port) as one, Client(port) as two:
        for client in (one, two):
            await client.ask(CLUSTER)
            await client.take(CLUSTER)
        first, second = (it.stream.subscriptions[CLUSTER].sent for it in servicer._connections)
        assert first is second


async def test_many_changes_at_once_are_one_push() -> None:
    view = Mesh()
    view.apply(MESH)
    async with serve(view) as (port, servicer), Client(port) as client:
        await client.ask(ENDPOINT, "cart")
        await client.take(ENDPOINT, "cart")
        for i in range(100):
            view.register(Instance("cart", str(i), "127.0.0.1", 15006))
        response = await client.take(ENDPOINT, "cart")
        (endpoint,) = ClusterLoadAssignment.FromString(response.resources[0].value).endpoints[0].lb_endpoints
        assert endpoint.metadata.filter_metadata["pillion"]["instance"] == "99"
        assert servicer.pushes[ENDPOINT] == 2


@pytest.mark.parametrize(
    ("service", "cluster", "app_port", "code", "details"),
    [
        ("", "cart", 80, grpc.StatusCode.UNAUTHENTICATED, "no token"),
        ("cart", "payments", 80, grpc.StatusCode.PERMISSION_DENIED, "'payments'"),
        ("cart", "", 80, grpc.StatusCode.INVALID_ARGUMENT, "node.cluster"),
        ("cart", "cart", 70000, grpc.StatusCode.INVALID_ARGUMENT, "node.metadata.app_port"),
    ],
)
async def test_who_is_refused(service: str, cluster: str, app_port: int, code: grpc.StatusCode, details: str) -> None:
    view = Mesh()
    async with serve(view) as (port, servicer), Client(port, service) as client:
        request = DiscoveryRequest(type_url=CLUSTER)
        request.node.id, request.node.cluster = "x", cluster
        request.node.metadata.update({"app_port": app_port})
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await client.call.write(request)
        assert await client.call.code() == code
        assert details in await client.call.details()
        assert servicer.streams == 0


async def test_delta_is_unimplemented_and_says_what_to_use() -> None:
    async with serve(Mesh()) as (port, _), Client(port) as client:
        call = client.stub.DeltaAggregatedResources(timeout=10)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(DeltaDiscoveryRequest())
        assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "StreamAggregatedResources" in await call.details()


async def test_a_mesh_that_cannot_be_compiled_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    view = Mesh()
    view.apply(MESH)
    async with serve(view) as (port, servicer), Client(port) as client:
        await client.ask(CLUSTER)
        await client.take(CLUSTER)
        view.apply("kind: Service\nname: cart\nroutes: [{backendRefs: [{name: nobody}]}]")  # as validate refuses
        await asyncio.sleep(servicer_module.DEBOUNCE * 4)
        assert "does not exist" in caplog.text
        assert servicer.pushes[CLUSTER] == 1
        view.apply(MESH)
        view.apply(MESH + "---\nkind: Service\nname: search\n")
        assert "search" in names(await client.take(CLUSTER))


async def test_bad_clients_harm_no_other() -> None:
    """One never answers, one floods with stale nonces, one asks for 10,000 names; a good one hears in time."""
    view = Mesh()
    view.apply(MESH)
    async with contextlib.AsyncExitStack() as stack:
        port, servicer = await stack.enter_async_context(serve(view))
        silent, flooding, greedy, good = [await stack.enter_async_context(Client(port)) for _ in range(4)]
        await silent.ask(ENDPOINT, "cart")
        await greedy.ask(ENDPOINT, *(f"name-{i}" for i in range(10_000)))

        async def flood() -> None:
            await flooding.ask(CLUSTER)
            while True:
                await flooding.ask(CLUSTER, response_nonce="stale")

        flooder = asyncio.create_task(flood())
        await good.ask(ENDPOINT, "cart")
        await good.take(ENDPOINT, "cart")
        for i in range(20):
            view.register(Instance("cart", str(i), "127.0.0.1", 15006))
            async with asyncio.timeout(2):
                await good.take(ENDPOINT, "cart")
        flooder.cancel()
        await asyncio.gather(flooder, return_exceptions=True)
        assert servicer.streams == 4
        assert servicer.pushes[ENDPOINT] == 22  # one for the silent one, however much changed


async def test_a_stream_ends_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sessions(EveryToken):
        over = False

        def session(self, metadata) -> str:
            if self.over:
                raise CredentialError("this session has expired")
            return super().session(metadata)

    monkeypatch.setattr(servicer_module, "SESSION_CHECK", 0.05)
    view, sessions = Mesh(), Sessions()
    view.apply(MESH)
    async with serve(view, sessions) as (port, servicer), Client(port) as client:
        await client.ask(CLUSTER)
        await client.take(CLUSTER)
        await asyncio.sleep(0.15)
        assert servicer.streams == 1  # checked, and still good
        sessions.over = True
        assert await client.call.read() == grpc.aio.EOF
        assert await client.call.code() == grpc.StatusCode.OK  # no failure: come back with the new token
        assert servicer.streams == 0


async def test_what_only_one_client_needed_goes_with_it() -> None:
    view = Mesh()
    view.apply(MESH)
    async with serve(view) as (port, servicer):
        for _ in range(3):
            async with Client(port) as client:
                await client.ask(CLUSTER)
                await client.take(CLUSTER)
                assert len(servicer._compiler._own) == 1
            while servicer.streams:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not servicer._compiler._own


async def test_bytes_that_are_no_request_are_the_clients_fault() -> None:
    view = Mesh()
    async with serve(view) as (port, _), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = f"/{servicer_module.SERVICE}/StreamAggregatedResources"
        call = channel.stream_stream(method)(metadata=(("authorization", "Bearer cart"),), timeout=5)
        await call.write(b"\xff\xff\xff")
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
