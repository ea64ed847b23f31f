"""A mesh that a test changes at will, and an ADS server for it on a local port, without TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import grpc.aio

from control_plane import mesh
from control_plane.ads.servicer import AdsServicer
from control_plane.errors import CredentialError
from control_plane.leases import Instance

MESH = """
kind: Service
name: cart
versions: {v1: {labels: {version: v1}}, v2: {labels: {version: v2}}}
routes:
  - backendRefs: [{name: cart, version: v1, weight: 9}, {name: cart, version: v2}]
---
kind: Service
name: payments
"""


class Mesh:
    """A MeshView."""

    trust_domain = "pillion.local"
    revision = 0

    def __init__(self) -> None:
        self.services: Mapping[str, mesh.ServiceDocument] = {}
        self.instances: Mapping[tuple[str, str], Instance] = {}
        self.listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def apply(self, yaml: str) -> None:
        self.services = {it.name: it for it in sorted(mesh.parse([("test", yaml)]), key=lambda it: it.name)}
        self.changed()

    def register(self, *instances: Instance) -> None:
        self.instances = {it.key: it for it in sorted(instances, key=lambda it: it.key)}
        self.changed()

    def changed(self) -> None:
        for listener in list(self.listeners):
            listener()


class EveryToken:
    """The token is the service's name; no token, no service."""

    def session(self, metadata) -> str:
        token = dict(metadata).get("authorization", "").removeprefix("Bearer ")
        if not token:
            raise CredentialError("no token")
        return token

    def failed(self, host: str) -> bool:
        return False


class Storefront(EveryToken):
    """Everyone is the storefront: for a client that sends no metadata."""

    def session(self, metadata) -> str:
        return "storefront"


@contextlib.asynccontextmanager
async def serve(mesh_view: Mesh, auth: EveryToken | None = None) -> AsyncIterator[tuple[int, AdsServicer]]:
    server = grpc.aio.server()
    servicer = AdsServicer(auth or EveryToken(), lambda: None, mesh_view)
    servicer.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, servicer
    finally:
        servicer.close()
        await server.stop(None)
        assert mesh_view.listeners == []
        async with asyncio.timeout(5):
            while servicer.streams:  # noqa: ASYNC110 - grpc does not say when its handlers are done
                await asyncio.sleep(0.01)
