"""What a sidecar refuses when it starts in the mesh: one line that names the place, exit code 2, nobody disturbed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pillion.demo.processes import free_ports
from tests.support import echo as echo_upstream
from tests.support.cli import pillion
from tests.support.harness import Harness
from tests.support.http import request


@pytest.fixture(scope="module")
def mesh(bare_mesh: Harness) -> Harness:
    bare_mesh.apply("kind: Service\nname: web\n---\nkind: Service\nname: cart\n")
    return bare_mesh


def start(
    mesh: Harness, token_file: Path, state: Path, *, service: str = "web", ports: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """`pillion proxy` in the mesh; `ports` are outbound, inbound and admin, free ones by default."""
    outbound, inbound, admin = ports or free_ports(3)
    identity = ["--service", service, "--app-port", "9", "--address", "127.0.0.1", "--state-dir", state]
    where = ["--control-plane", mesh.control_plane.grpc, "--token-file", token_file]
    numbers = ["--outbound-port", str(outbound), "--inbound-port", str(inbound), "--admin-port", str(admin)]
    return pillion("proxy", *identity, *where, *numbers)


def check(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr


def test_a_join_token_that_another_instance_used(mesh: Harness, tmp_path: Path) -> None:
    token = mesh.token("web")
    first = mesh.up_sidecar("web", 9, token_file=token)
    try:
        check(start(mesh, token, tmp_path), "already used", "pillion token web")
        assert request(first.admin, "/ready").status == 200
    finally:
        first.process.terminate()
        first.process.wait(10)


def test_a_token_for_another_service(mesh: Harness, tmp_path: Path) -> None:
    check(start(mesh, mesh.token("cart"), tmp_path), "cart", "web")


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "spiffe://pillion.local/service/web secret-word\n"])
def test_a_file_that_holds_no_token(mesh: Harness, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "web.token"
    if content is not None:
        file.write_text(content)
    done = start(mesh, file, tmp_path / "state")
    check(done, str(file))
    assert "secret-word" not in done.stderr


@pytest.mark.parametrize("which", ["outbound", "inbound", "admin"])
def test_a_port_in_use(mesh: Harness, tmp_path: Path, which: str) -> None:
    with echo_upstream.in_thread() as owner:
        ports = dict(zip(("outbound", "inbound", "admin"), free_ports(3), strict=True))
        ports[which] = owner.port
        done = start(mesh, mesh.token("web"), tmp_path, ports=tuple(ports.values()))
        check(done, f"--{which}-port {owner.port}", "in use")
        assert request(owner.port).status == 200
