"""The pillion.v1 API over a real TLS port: who may do what, and how a refusal reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from cryptography import x509
from google.protobuf.duration_pb2 import Duration

from control_plane.auth import MAX_DETAILS, bounded
from pillion.client import bearer
from pillion.v1 import mesh_pb2 as pb
from tests.support.plane import Plane, csr, running

Code = grpc.StatusCode


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with running(tmp_path) as plane:
        yield plane


async def refused(call: object, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]
    assert raised.value.code() is code, raised.value.details()
    return raised.value.details() or ""


async def test_joining_and_renewing(plane: Plane) -> None:
    token = await plane.token("cart")
    answer = await plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart"), join_token=token))
    root = x509.load_pem_x509_certificate(answer.trust_bundle_pem.encode())
    leaf = x509.load_pem_x509_certificate(answer.certificate_chain_pem.encode())
    leaf.verify_directly_issued_by(root)
    assert leaf.not_valid_after_utc.timestamp() == answer.expires.seconds
    renewed = await plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart")), metadata=bearer(answer.session_token))
    assert renewed.session_token not in ("", answer.session_token)
    bundle = await plane.ca.Bundle(pb.BundleRequest())
    assert (bundle.trust_bundle_pem, bundle.trust_domain) == (answer.trust_bundle_pem, "pillion.local")


async def test_a_join_token_is_burnt_by_success_only(plane: Plane) -> None:
    token = await plane.token("cart")
    bad = plane.ca.Sign(pb.SignRequest(csr_pem="rubbish", join_token=token))
    assert "csr_pem" in await refused(bad, Code.INVALID_ARGUMENT)
    other = plane.ca.Sign(pb.SignRequest(csr_pem=csr("payments"), join_token=token))
    assert "this token is for spiffe://pillion.local/service/cart" in await refused(other, Code.PERMISSION_DENIED)
    calls = [plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart"), join_token=token)) for _ in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, pb.SignResponse) for result in results) == 1
    again = plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart"), join_token=token))
    details = await refused(again, Code.UNAUTHENTICATED)
    assert details == "this join token was already used; make another with: pillion token cart"


async def test_a_session_speaks_for_its_own_service_only(plane: Plane) -> None:
    cart = await plane.join("cart")
    mine = pb.Instance(service="cart", id="a", host="127.0.0.1", port=9)
    answer = await plane.registry.Register(pb.RegisterRequest(instance=mine), metadata=cart)
    assert answer.lease.seconds == 10
    beat = pb.HeartbeatRequest(service="cart", id="a")
    assert (await plane.registry.Heartbeat(beat, metadata=cart)).lease.seconds == 10
    status = await plane.mesh.Status(pb.StatusRequest(), metadata=plane.operator)
    assert [(it.service, it.id, it.weight) for it in status.instances] == [("cart", "a", 1)]

    payments = await plane.join("payments")
    for call in (
        plane.registry.Register(pb.RegisterRequest(instance=mine), metadata=payments),
        plane.registry.Heartbeat(beat, metadata=payments),
        plane.registry.Deregister(pb.DeregisterRequest(service="cart", id="a"), metadata=payments),
        plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart")), metadata=payments),
    ):
        await refused(call, Code.PERMISSION_DENIED)

    wrong = pb.Instance(service="cart", id="a", host="127.0.0.1", port=0)
    call = plane.registry.Register(pb.RegisterRequest(instance=wrong), metadata=cart)
    assert "instance.port" in await refused(call, Code.INVALID_ARGUMENT)
    long = pb.RegisterRequest(instance=mine, lease=Duration(seconds=301))
    assert "lease" in await refused(plane.registry.Register(long, metadata=cart), Code.INVALID_ARGUMENT)

    await plane.registry.Deregister(pb.DeregisterRequest(service="cart", id="a"), metadata=cart)
    assert "register again" in await refused(plane.registry.Heartbeat(beat, metadata=cart), Code.NOT_FOUND)


async def test_a_lease_without_heartbeats_ends(plane: Plane) -> None:
    cart = await plane.join("cart")
    mine = pb.Instance(service="cart", id="a", host="127.0.0.1", port=9)
    request = pb.RegisterRequest(instance=mine, lease=Duration(seconds=1))
    await plane.registry.Register(request, metadata=cart)
    for _ in range(100):
        if not (await plane.mesh.Status(pb.StatusRequest(), metadata=plane.operator)).instances:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the lease of 1 s did not end within 5 s")


async def test_credentials_are_needed_and_not_mixed_up(plane: Plane) -> None:
    cart, join = await plane.join("cart"), bearer(await plane.token("cart"))
    apply = pb.ApplyRequest(documents=[pb.Document(source="a.yaml", yaml="kind: Service\nname: cart\n")])
    for metadata in ((), cart, join, bearer("x"), (("authorization", "Basic x"),)):
        await refused(plane.mesh.Apply(apply, metadata=metadata), Code.UNAUTHENTICATED)
    for metadata in ((), plane.operator, join):
        beat = plane.registry.Heartbeat(pb.HeartbeatRequest(service="cart"), metadata=metadata)
        await refused(beat, Code.UNAUTHENTICATED)
        sign = plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart")), metadata=metadata)
        await refused(sign, Code.UNAUTHENTICATED)
    unknown = plane.ca.Sign(pb.SignRequest(csr_pem=csr("cart"), join_token="guess"))
    assert "unknown" in await refused(unknown, Code.UNAUTHENTICATED)
    answer = await plane.mesh.Get(pb.GetRequest(), metadata=plane.operator)
    assert (answer.revision, list(answer.services)) == (0, [])


async def test_failed_authentications_are_limited_and_good_ones_are_not(plane: Plane) -> None:
    for _ in range(30):
        await refused(plane.mesh.Get(pb.GetRequest()), Code.UNAUTHENTICATED)
    await refused(plane.mesh.Get(pb.GetRequest()), Code.RESOURCE_EXHAUSTED)
    await plane.mesh.Get(pb.GetRequest(), metadata=plane.operator)


async def test_a_bad_document_names_its_place_and_changes_nothing(plane: Plane) -> None:
    good = pb.Document(source="good.yaml", yaml="kind: Service\nname: cart\n")
    await plane.mesh.Apply(pb.ApplyRequest(documents=[good]), metadata=plane.operator)
    before = await plane.mesh.Get(pb.GetRequest(), metadata=plane.operator)
    for yaml, says in (
        ("[1]\n", "bad.yaml:1:1: "),
        ("kind: Service\nname: x\nrouts: []\n", "bad.yaml:3:1: unknown key 'routs'; did you mean 'routes'?"),
        ("kind: Service\nname: x\nroutes: [{backendRefs: [{name: nope}]}]\n", "bad.yaml:3:32: "),
    ):
        request = pb.ApplyRequest(documents=[good, pb.Document(source="bad.yaml", yaml=yaml)])
        call = plane.mesh.Apply(request, metadata=plane.operator)
        assert says in await refused(call, Code.INVALID_ARGUMENT)
    await refused(plane.mesh.Apply(pb.ApplyRequest(), metadata=plane.operator), Code.INVALID_ARGUMENT)
    assert await plane.mesh.Get(pb.GetRequest(), metadata=plane.operator) == before


async def test_many_problems_fit_into_a_status(plane: Plane) -> None:
    yaml = "kind: Service\nname: x\n" + "".join(f"ключ{n}: 1\n" for n in range(500))
    request = pb.ApplyRequest(documents=[pb.Document(source="файл.yaml", yaml=yaml)])
    details = await refused(plane.mesh.Apply(request, metadata=plane.operator), Code.INVALID_ARGUMENT)
    assert "ключ0" in details
    assert details.splitlines()[-1].endswith("more")


def test_details_are_cut_at_whole_lines() -> None:
    assert bounded("one\ntwo") == "one\ntwo"
    assert bounded("\n".join(["x" * 100] * 1000)).splitlines()[-1].startswith("... and ")
    assert 0 < len(bounded("x" * 100_000)) < MAX_DETAILS


async def test_get_names_the_nearest(plane: Plane) -> None:
    document = pb.Document(source="a.yaml", yaml="# mine\nkind: Service\nname: cart\n")
    await plane.mesh.Apply(pb.ApplyRequest(documents=[document]), metadata=plane.operator)
    answer = await plane.mesh.Get(pb.GetRequest(service="cart"), metadata=plane.operator)
    assert [(it.name, it.yaml, it.revision) for it in answer.services] == [("cart", document.yaml, 1)]
    near = plane.mesh.Get(pb.GetRequest(service="crat"), metadata=plane.operator)
    assert "did you mean 'cart'?" in await refused(near, Code.NOT_FOUND)


async def test_the_web_port_answers(plane: Plane) -> None:
    cart = await plane.join("cart")
    mine = pb.Instance(service="cart", id="a", host="127.0.0.1", port=9)
    await plane.registry.Register(pb.RegisterRequest(instance=mine), metadata=cart)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{plane.web}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{plane.web}/") as answer:
            assert [line.split()[1] for line in (await answer.text()).splitlines()] == ["/healthz", "/metrics"]
        async with session.get(f"{plane.web}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    assert 'pillion_registered_instances{service="cart"} 1.0' in lines
    assert 'pillion_certificates_signed_total{by="join_token"} 1.0' in lines
    assert "pillion_xds_streams 0.0" in lines
