"""What the control plane refuses: each with its place or its status, and with the running state unchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pillion.client import TokenFile, channel
from pillion.v1 import mesh_pb2, mesh_pb2_grpc
from tests.support.cli import pillion
from tests.support.harness import Harness, refusal
from tests.support.wait import wait_until

GOOD = "kind: Service\nname: cart\n"


@pytest.fixture(scope="module")
def mesh(bare_mesh: Harness) -> Harness:
    bare_mesh.apply(GOOD)
    return bare_mesh


@pytest.fixture
def unchanged(mesh: Harness) -> Iterator[None]:
    """The configuration in force is the same after the test as before."""
    before = mesh.get()
    yield
    assert mesh.get() == before
    assert mesh.control_plane.process.returncode is None


def cli(mesh: Harness, *arguments: str | Path, stdin: str = "") -> Any:
    where = ["--control-plane", mesh.control_plane.grpc, "--token-file", mesh.control_plane.token_file]
    return pillion(*arguments, *where, stdin=stdin)


@pytest.mark.parametrize(
    ("yaml", "place", "words"),
    [
        ("just words\n", "mesh.yaml:1:1", "mapping"),
        ("- kind: Service\n", "mesh.yaml:1:1", "mapping"),
        (GOOD + "protokol: http\n", "mesh.yaml:3:1", "did you mean 'protocol'"),
        (
            "kind: Service\nname: web\nroutes:\n  - name: r\n    backendRefs:\n      - name: carts\n",
            "mesh.yaml:6:15",
            "carts",
        ),
        ("kind: Service\nname: web\nroutes: [\n", "mesh.yaml:4:1", "not YAML"),
        ("kind: Service\nname: Not_A_Name\n", "mesh.yaml:2:7", "name"),
        (
            "kind: Service\nname: web\nroutes:\n  - backendRefs: [{name: cart, version: v9}]\n",
            "mesh.yaml:4:41",
            "v9",
        ),
        # One bad document among good ones: nothing is applied.
        ("kind: Service\nname: fine\n---\nkind: Serivce\nname: web\n", "mesh.yaml:4:7", "Service"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_bad_file_is_refused_with_its_place(mesh: Harness, tmp_path: Path, yaml: str, place: str, words: str) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(yaml)

    done = cli(mesh, "apply", "-f", file)

    assert done.returncode == 2
    assert place in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("unchanged")
def test_a_dry_run_changes_nothing(mesh: Harness) -> None:
    done = cli(mesh, "apply", "-f", "-", "--dry-run", stdin="kind: Service\nname: fresh\n")
    assert done.returncode == 0
    assert "fresh added" in done.stdout


@pytest.mark.usefixtures("unchanged")
def test_the_operators_calls_need_the_operators_token(mesh: Harness) -> None:
    join = mesh.token("cart")
    done = pillion("apply", "-f", "-", "--control-plane", mesh.control_plane.grpc, "--token-file", join, stdin=GOOD)
    assert done.returncode == 1
    assert "operator.token" in done.stderr


def csr(uri: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def sign(mesh: Harness, token_file: Path, uri: str = "") -> mesh_pb2.SignResponse:
    token = TokenFile.load(token_file)
    request = mesh_pb2.SignRequest(csr_pem=csr(uri or token.identity), join_token=token.token)
    with channel(mesh.control_plane.grpc, token.roots_pem) as opened:
        return mesh_pb2_grpc.CertificateAuthorityStub(opened).Sign(request, timeout=5)


@contextlib.contextmanager
def refused(status: grpc.StatusCode, words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    code, details = refusal(caught.value)
    assert code is status
    assert words in details


def test_a_join_token_works_once(mesh: Harness) -> None:
    token = mesh.token("cart")
    assert sign(mesh, token).session_token
    with refused(grpc.StatusCode.UNAUTHENTICATED, "already used"):
        sign(mesh, token)


def test_an_expired_join_token_is_refused(mesh: Harness) -> None:
    token = mesh.token("cart", lifetime=1)

    def expired() -> bool:
        # It may not be burnt by trying: ask with a request that cannot succeed.
        with pytest.raises(grpc.RpcError) as caught:
            sign(mesh, token, "spiffe://pillion.local/service/other")
        return "expired" in refusal(caught.value)[1]

    wait_until(expired, 5, interval=0.2)
    with refused(grpc.StatusCode.UNAUTHENTICATED, "pillion token cart"):
        sign(mesh, token)


def test_a_csr_for_another_service_is_refused_and_does_not_burn_the_token(mesh: Harness) -> None:
    token = mesh.token("cart")
    with refused(grpc.StatusCode.PERMISSION_DENIED, "spiffe://pillion.local/service/cart"):
        sign(mesh, token, "spiffe://pillion.local/service/payments")
    assert sign(mesh, token).session_token


def test_a_port_in_use_is_a_clear_error(mesh: Harness, tmp_path: Path) -> None:
    address = mesh.control_plane.grpc

    done = pillion("control-plane", "--data-dir", tmp_path / "other", "--grpc", address, "--web", "127.0.0.1:0")

    assert done.returncode == 2
    assert address in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert mesh.get()  # the one that has the port still serves


def test_a_token_for_a_bad_name_is_refused(mesh: Harness) -> None:
    done = cli(mesh, "token", "Not_A_Name")
    assert done.returncode == 2
    assert "Not_A_Name" in done.stderr
