"""gRPC as applications use it, through a pair of sidecars over mutual TLS: grpcio's synchronous and asyncio clients and
servers, every kind of call, metadata, sizes, compression, errors. Also with the real Envoy in either seat."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.support import grpc_app, grpc_client, grpc_mesh
from tests.support.grpc_app import path
from tests.support.grpc_client import Aio, Sync
from tests.support.harness import access_log, harness
from tests.support.sidecars import Pair
from tests.support.wait import wait_until

MIB = 1024 * 1024
METADATA = [
    ("my-text", "plain, with comma"),
    ("my-twice", "one"),
    ("my-twice", "two"),
    ("my-padded-bin", b"\x00\xff\x80any bytes"),
    ("my-empty-bin", b""),
]


@dataclass(frozen=True)
class Mesh:
    pair: Pair

    @property
    def port(self) -> int:
        return self.pair.front.listen


@pytest.fixture(scope="module", params=grpc_mesh.pairs())
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with harness(tmp_path_factory.mktemp("grpc")) as work:
        apps = {
            "aio": grpc_app.start(work, "aio")[1],
            "sync": grpc_app.start(work, "sync", "--blocking")[1],
        }
        yield Mesh(grpc_mesh.start_pair(work, request.param, apps))


@pytest.fixture(params=[Sync, Aio], ids=["sync client", "aio client"])
def client(request: pytest.FixtureRequest, mesh: Mesh, server: str) -> Sync | Aio:
    made: Sync | Aio = request.param(mesh.port, f"h2.{server}")
    return made


@pytest.fixture(params=["sync", "aio"], ids=["sync server", "aio server"])
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_kind_of_call(client: Sync | Aio) -> None:
    parts = [b"a" * 100, b"", b"b" * 100_000]
    digest = hashlib.sha256(b"".join(parts)).hexdigest().encode()

    unary = client.call("unary_unary", "Unary", b"hello")
    assert (unary.messages, unary.code, unary.details) == ([b"hello"], grpc.StatusCode.OK, "")
    assert client.call("unary_unary", "Unary", b"").messages == [b""]
    assert client.call("stream_unary", "Collect", *parts).message == b"3 " + digest
    assert client.call("stream_unary", "Collect").message.startswith(b"0 ")
    split = client.call("unary_stream", "Split", b"300 1000").messages
    assert split == [bytes([number % 256]) * 1000 for number in range(300)]
    empty = client.call("unary_stream", "Split", b"0 0")
    assert (empty.messages, empty.code) == ([], grpc.StatusCode.OK)
    assert client.call("stream_stream", "Chat", *parts).messages == parts
    assert client.call("stream_stream", "Chat").messages == []


@pytest.mark.parametrize(
    ("kind", "method", "request_"),
    [
        ("unary_unary", "Unary", b"1"),
        ("stream_unary", "Collect", b"1"),
        ("unary_stream", "Split", b"1 1"),
        ("stream_stream", "Chat", b"1"),
    ],
)
def test_metadata_both_ways(client: Sync | Aio, kind: str, method: str, request_: bytes) -> None:
    result = client.call(kind, method, request_, metadata=METADATA)
    assert result.code is grpc.StatusCode.OK
    assert [pair for pair in result.initial if pair[0].startswith("my-")] == METADATA
    assert [pair for pair in result.trailing if pair[0].startswith("t-")] == [(f"t-{k}", v) for k, v in METADATA]


def test_an_applications_status_arrives(mesh: Mesh) -> None:
    with grpc_client.channel(mesh.port, "h2.aio") as channel:
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK:
                details = f"{code.name}: naïve 100 %\n«text»"
                with pytest.raises(grpc.RpcError) as error:
                    channel.unary_unary(path("Fail"))(
                        details.encode(), timeout=30, metadata=[("x-code", str(code.value[0]))]
                    )
                assert (error.value.code(), error.value.details()) == (code, details)


def test_rich_error_details(client: Sync | Aio) -> None:
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="over quota")
    violation = error_details_pb2.QuotaFailure.Violation(subject="tenant", description="x" * 3000)
    for detail in (
        error_details_pb2.QuotaFailure(violations=[violation]),
        error_details_pb2.RetryInfo(retry_delay={"seconds": 7}),
    ):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    metadata = [("x-code", str(code_pb2.RESOURCE_EXHAUSTED)), ("x-details-bin", status.SerializeToString())]
    result = client.call("unary_unary", "Fail", b"over quota", metadata=metadata)
    assert result.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = dict(result.trailing)["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    assert status_pb2.Status.FromString(details) == status
    if isinstance(client, Sync):
        assert rpc_status.from_call(result.error) == status


def test_an_unknown_method_is_the_servers_answer(client: Sync | Aio) -> None:
    result = client.call("unary_unary", "Nonesuch", b"x")
    assert result.code is grpc.StatusCode.UNIMPLEMENTED
    assert "no route" not in result.details


def test_messages_of_32_mib(mesh: Mesh) -> None:
    """Each client and each server once."""
    large = hashlib.sha256(b"seed").digest() * MIB
    assert len(large) == 32 * MIB
    for client in (Sync(mesh.port, "h2.aio"), Aio(mesh.port, "h2.sync")):
        assert client.call("unary_unary", "Unary", large).message == large


def test_gzip(mesh: Mesh) -> None:
    """A MiB of zeros takes a few KiB on its way up; what comes back is as the server sends it, not compressed."""
    zeros = bytes(MIB)
    before = len(calls(mesh, "Unary"))
    clients = [kind(mesh.port, authority) for kind in (Sync, Aio) for authority in ("h2.aio", "h2.sync")]
    for client in clients:
        assert client.call("unary_unary", "Unary", zeros, compression=grpc.Compression.Gzip).message == zeros
    last = len(clients)
    for records in wait_until(lambda: (found := of_both(mesh)) and len(found[0]) >= before + last and found, 15):
        assert max(record["received"] for record in records[-last:]) < 16 * 1024
        assert min(record["sent"] for record in records[-last:]) > MIB


def of_both(mesh: Mesh) -> list[list[dict[str, object]]]:
    """The records of Unary calls in both sidecars, when they have equally many."""
    front, back = (calls(mesh, "Unary", name) for name in ("front", "back"))
    return [front, back] if len(front) == len(back) else []


def calls(mesh: Mesh, method: str, name: str = "front") -> list[dict[str, object]]:
    return [r for r in access_log(mesh.pair.sidecars[name].process) if r["path"] == path(method)]


def test_messages_pass_as_they_come(mesh: Mesh, server: str) -> None:
    """Each message is sent only when the answer to the one before it is there."""
    with grpc_client.channel(mesh.port, f"h2.{server}") as channel:
        sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        answers = channel.stream_stream(path("Chat"))(iter(sent.get, None), timeout=30)
        for number in range(50):
            sent.put(b"%d" % number)
            assert next(answers) == b"%d" % number
        sent.put(None)
        assert list(answers) == []
        assert answers.code() is grpc.StatusCode.OK


async def test_messages_pass_as_they_come_asyncio(mesh: Mesh) -> None:
    async with grpc_client.aio_channel(mesh.port, "h2.aio") as channel:
        call = channel.stream_stream(path("Chat"))(timeout=30)
        for number in range(50):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


def test_one_channel_serves_many_threads(mesh: Mesh, server: str) -> None:
    """Calls of different sizes at once, on one connection; each has its own answer."""
    payloads = [bytes([number]) * (number * 1000) for number in range(1, 100)]
    with grpc_client.channel(mesh.port, f"h2.{server}") as channel:
        start = channel.unary_unary(path("Unary"))
        futures = [start.future(payload, timeout=30) for payload in payloads]
        assert [future.result() for future in futures] == payloads


def test_a_link_of_http1_carries_calls_too(mesh: Mesh) -> None:
    """HTTP/2 to HTTP/1.1 and back: messages in chunks, grpc-status in the chunked body's trailers."""
    client = Aio(mesh.port, "h1.aio")
    result = client.call("unary_unary", "Unary", b"x" * 100_000, metadata=METADATA)
    assert (result.message, result.code) == (b"x" * 100_000, grpc.StatusCode.OK)
    assert [pair for pair in result.trailing if pair[0].startswith("t-")] == [(f"t-{k}", v) for k, v in METADATA]
    split = client.call("unary_stream", "Split", b"300 1000").messages
    assert split == [bytes([number % 256]) * 1000 for number in range(300)]
    failed = client.call("unary_unary", "Fail", b"because", metadata=[("x-code", "9")])
    assert (failed.code, failed.details) == (grpc.StatusCode.FAILED_PRECONDITION, "because")


def test_server_reflection(mesh: Mesh) -> None:
    with grpc_client.channel(mesh.port, "h2.aio") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = stub.ServerReflectionInfo(asked, timeout=30)
    names = {service.name for service in answer.list_services_response.service}
    assert names == {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_health_checks(mesh: Mesh) -> None:
    with grpc_client.channel(mesh.port, "h2.aio") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert check(stub, "") == health_pb2.HealthCheckResponse.SERVING
        assert check(stub, grpc_app.NAME) == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as refused:
            check(stub, "nonesuch")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=grpc_app.NAME), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


def check(stub: health_pb2_grpc.HealthStub, service: str) -> int:
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status
    return status
