"""What is compiled for a grpc service carries its calls, in Envoy as in Pillion: one process with the outbound listener of
the caller's sidecar and the inbound one of the service's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from google.protobuf import json_format

from control_plane import mesh
from control_plane.compile import Client, Compiler
from control_plane.leases import Instance
from pillion.demo.processes import free_ports
from tests.support import envoy, grpc_app
from tests.support.certificates import Authority
from tests.support.envoy_files import Files, static_bootstrap
from tests.support.grpc_client import Sync
from tests.support.harness import Harness, harness
from tests.support.wait import wait_until

MESH = """
kind: Service
name: shop
---
kind: Service
name: pay
protocol: grpc
routes:
  - name: bounded
    matches: [{path: {type: Exact, value: /test.Calls/Wait}}]
    backendRefs: [{name: pay}]
    timeouts: {request: 400ms}
  - {name: rest, backendRefs: [{name: pay}]}
"""


def bootstrap(directory: Path, outbound: int, inbound: int, app: int) -> Bootstrap:
    ca = Authority()
    roots = directory / "roots.pem"
    roots.write_text(ca.pem)

    def files(service: str) -> Files:
        return *ca.issue(f"spiffe://pillion.local/service/{service}").write(directory, service), roots

    compiler = Compiler("pillion.local")
    documents = mesh.parse([("mesh", MESH)])
    mesh.validate(documents)
    instances = [Instance("pay", "1", "127.0.0.1", inbound), Instance("shop", "1", "127.0.0.1", 9)]
    compiler.update({it.name: it for it in documents}, {it.key: it for it in instances})
    caller = static_bootstrap(compiler.snapshot(Client("shop", 9, 1, outbound)), files("shop"))
    service = static_bootstrap(compiler.snapshot(Client("pay", app, inbound, 1)), files("pay"))
    both = Bootstrap()
    for resources, inner in ((caller.static_resources, False), (service.static_resources, True)):
        both.static_resources.listeners.extend(it for it in resources.listeners if (it.name == "inbound") is inner)
        both.static_resources.clusters.extend(it for it in resources.clusters if (it.name == "inbound") is inner)
    return both


def command(kind: str, file: Path) -> list[str]:
    if kind == "pillion":
        return [sys.executable, "-m", "proxy", "-c", str(file)]
    return [str(envoy.ENVOY), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]


def start(work: Harness, kind: str) -> int:
    """The outbound port, once calls go through."""
    app = grpc_app.start(work, "app")[1]
    outbound, inbound = free_ports(2)
    file = work.directory / "bootstrap.json"
    file.write_text(json_format.MessageToJson(bootstrap(work.directory, outbound, inbound, app)))
    process = work.tree.start(kind, command(kind, file))
    client = Sync(outbound, "pay")

    def serves() -> bool:
        assert process.returncode is None, process.tail()
        return client.call("unary_unary", "Unary", b"").code is grpc.StatusCode.OK

    wait_until(serves, 30, f"{kind} serves")
    return outbound


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("envoy", marks=[pytest.mark.envoy, pytest.mark.skipif(envoy.MISSING, reason="no Envoy")]),
        "pillion",
    ],
)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with harness(tmp_path_factory.mktemp("compiled")) as work:
        yield start(work, request.param)


def test_messages_and_metadata_pass_both_ways(port: int) -> None:
    client = Sync(port, "pay")
    metadata = (("my-name", "a"), ("my-bytes-bin", b"\0\xff"))
    result = client.call("unary_unary", "Unary", b"hello", metadata=metadata)
    assert (result.code, result.message) == (grpc.StatusCode.OK, b"hello")
    assert set(metadata) <= set(result.initial)
    result = client.call("unary_stream", "Split", b"5 1000")
    assert [len(message) for message in result.messages] == [1000] * 5
    result = client.call("stream_stream", "Chat", b"a", b"b")
    assert (result.code, result.messages) == (grpc.StatusCode.OK, [b"a", b"b"])


@pytest.mark.parametrize("asked", [60.0, 3600.0])
def test_the_callers_deadline_counts_however_long(port: int, asked: float) -> None:
    left = float(Sync(port, "pay").call("unary_unary", "Remaining", b"", timeout=asked).message)
    assert asked - 5 < left <= asked * 1.01  # grpcio sends long ones rounded up


def test_a_call_without_a_deadline_has_none(port: int) -> None:
    assert Sync(port, "pay").call("unary_unary", "Remaining", b"", timeout=None).message == b"none"


@pytest.mark.parametrize("deadline", [None, 30.0])
def test_the_routes_request_timeout_bounds_a_call(port: int, deadline: float | None) -> None:
    """With DEADLINE_EXCEEDED, whether or not the caller has a deadline of its own; and the app learns of it."""
    client = Sync(port, "pay")
    key = b"bounded %r" % deadline
    start = time.monotonic()
    result = client.call("unary_unary", "Wait", key, timeout=deadline)
    assert result.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.35 < time.monotonic() - start < 3
    wait_until(lambda: "ended" in json.loads(client.call("unary_unary", "Noted", key).message), 5)
