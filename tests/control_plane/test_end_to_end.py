"""From `apply` and `register` to what a client of the discovery service is given, over a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE
from pillion.client import bearer
from pillion.v1 import mesh_pb2 as pb
from tests.support.plane import Plane, running

MESH = "kind: Service\nname: cart\nversions: {v1: {labels: {version: v1}}}\n---\nkind: Service\nname: web\n"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with running(tmp_path) as plane:
        yield plane


NAMES = {CLUSTER: (), ENDPOINT: ("cart", "cart|v1", "web"), LISTENER: (), ROUTE: ("outbound",)}


class Client:
    """One ADS stream; `config` is the last accepted response of each type."""

    def __init__(self, plane: Plane, session: tuple[tuple[str, str], ...], service: str) -> None:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(plane.channel)
        self.call = stub.StreamAggregatedResources(metadata=session, timeout=20)
        self.config: dict[str, DiscoveryResponse] = {}
        self._service = service

    async def ask(self, type_url: str, **more: Any) -> None:
        request = DiscoveryRequest(type_url=type_url, resource_names=NAMES[type_url], **more)
        request.node.id, request.node.cluster = f"{self._service}~1", self._service
        await self.call.write(request)

    async def take(self) -> DiscoveryResponse:
        response = await asyncio.wait_for(self.call.read(), 10)
        assert isinstance(response, DiscoveryResponse)
        return response

    async def accept(self, condition: Callable[[Mapping[str, DiscoveryResponse]], bool]) -> list[str]:
        """Accept what comes until the condition holds; the types that came."""
        came = []
        while not condition(self.config):
            response = await self.take()
            self.config[response.type_url] = response
            came.append(response.type_url)
            known = {"version_info": response.version_info, "response_nonce": response.nonce}
            await self.ask(response.type_url, **known)
        return came

    async def follow(self, *ports: int) -> list[str]:
        """Accept until everything is there and cart has endpoints at exactly these ports."""
        wanted = {("127.0.0.1", port) for port in ports}
        return await self.accept(
            lambda config: config.keys() == NAMES.keys() and addresses(config[ENDPOINT], "cart|v1") == wanted
        )


def addresses(response: DiscoveryResponse, cluster: str) -> set[tuple[str, int]]:
    for packed in response.resources:
        assignment = ClusterLoadAssignment.FromString(packed.value)
        if assignment.cluster_name == cluster:
            return {
                (socket.address, socket.port_value)
                for locality in assignment.endpoints
                for endpoint in locality.lb_endpoints
                for socket in [endpoint.endpoint.address.socket_address]
            }
    raise AssertionError(f"no assignment for {cluster}")


async def apply(plane: Plane, yaml: str) -> int:
    request = pb.ApplyRequest(documents=[pb.Document(source="mesh.yaml", yaml=yaml)])
    return int((await plane.mesh.Apply(request, metadata=plane.operator)).revision)


async def register(plane: Plane, session: tuple[tuple[str, str], ...], name: str, port: int) -> None:
    it = pb.Instance(service="cart", id=name, host="127.0.0.1", port=port, labels={"version": "v1"})
    await plane.registry.Register(pb.RegisterRequest(instance=it), metadata=session)


async def test_what_is_applied_and_registered_reaches_a_client(plane: Plane, tmp_path: Path) -> None:
    await apply(plane, MESH)
    cart, web = await plane.join("cart"), await plane.join("web")
    await register(plane, cart, "a", 9001)

    client = Client(plane, web, "web")
    for type_url in NAMES:
        await client.ask(type_url)
    await client.follow(9001)
    assert addresses(client.config[ENDPOINT], "cart") == {("127.0.0.1", 9001)}
    assert addresses(client.config[ENDPOINT], "web") == set()

    # A new instance is pushed, and nothing else is.
    await register(plane, cart, "b", 9002)
    assert await client.follow(9001, 9002) == [ENDPOINT]

    # A refusal is seen by the operator.
    deregister = pb.DeregisterRequest(service="cart", id="a")
    await plane.registry.Deregister(deregister, metadata=cart)
    refused = await client.take()
    error = {"code": 3, "message": "cart: I do not like it"}
    version = client.config[ENDPOINT].version_info
    await client.ask(ENDPOINT, version_info=version, response_nonce=refused.nonce, error_detail=error)
    for _ in range(200):
        status = await plane.mesh.Status(pb.StatusRequest(), metadata=plane.operator)
        (proxy,) = status.proxies
        found = {it.type_url: it for it in proxy.resources}
        if found[ENDPOINT].error:
            break
        await asyncio.sleep(0.02)
    assert (proxy.node_id, proxy.service) == ("web~1", "web")
    assert found[ENDPOINT].error == "cart: I do not like it"
    assert (found[ENDPOINT].sent_version, found[ENDPOINT].acked_version) == (refused.version_info, version)
    assert found[CLUSTER].sent_version == found[CLUSTER].acked_version == client.config[CLUSTER].version_info


async def test_a_restart_keeps_sessions_instances_and_versions(tmp_path: Path) -> None:
    async def fetch(plane: Plane, session: tuple[tuple[str, str], ...]) -> dict[str, str]:
        client = Client(plane, session, "cart")
        for type_url in NAMES:
            await client.ask(type_url)
        await client.follow(9001)
        client.call.cancel()
        return {type_url: it.version_info for type_url, it in client.config.items()}

    async with running(tmp_path) as plane:
        await apply(plane, MESH)
        cart = await plane.join("cart")
        await register(plane, cart, "a", 9001)
        before = await fetch(plane, cart)
    async with running(tmp_path) as plane:
        assert await fetch(plane, cart) == before
        beat = pb.HeartbeatRequest(service="cart", id="a")
        assert (await plane.registry.Heartbeat(beat, metadata=cart)).lease.seconds == 10
        assert await apply(plane, MESH) == 1


async def test_a_stream_needs_the_session_of_its_own_service(plane: Plane) -> None:
    web = await plane.join("web")
    for session, service, code in (
        ((), "web", grpc.StatusCode.UNAUTHENTICATED),
        (plane.operator, "web", grpc.StatusCode.UNAUTHENTICATED),
        (bearer("guess"), "web", grpc.StatusCode.UNAUTHENTICATED),
        (web, "cart", grpc.StatusCode.PERMISSION_DENIED),
    ):
        client = Client(plane, session, service)
        with pytest.raises(grpc.aio.AioRpcError) as raised:  # noqa: PT012 - either may be the first to notice
            await client.ask(CLUSTER)
            await client.take()
        assert raised.value.code() is code
