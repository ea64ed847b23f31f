"""The mesh goes on without its control plane, and takes up what is new when it returns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pillion.demo.mesh import Sidecar
from tests.support import echo as echo_upstream
from tests.support.echo import Echo
from tests.support.harness import Harness, endpoints, kill, metric
from tests.support.load import Load
from tests.support.wait import wait_until


@dataclass(frozen=True)
class Pair:
    mesh: Harness
    web: Sidecar
    echo: Sidecar
    app: Echo


@pytest.fixture
def pair(work: Harness) -> Iterator[Pair]:
    work.up_control_plane()
    work.apply("kind: Service\nname: web\n---\nkind: Service\nname: echo\n")
    with echo_upstream.in_thread() as app:
        web = work.start_sidecar("web", 9)
        echo = work.up_sidecar("echo", app.port)
        wait_until(web.ready, 30)
        work.wait_for(web, "echo")
        yield Pair(work, web, echo, app)


def kill_control_plane(mesh: Harness) -> None:
    process = mesh.control_plane.process
    process.kill()
    process.wait(5)


def test_no_request_fails_while_it_is_gone_and_a_new_endpoint_arrives_after(pair: Pair) -> None:
    with Load(pair.web.outbound, "echo", rate=50) as load:
        wait_until(lambda: load.results()["200"] >= 50, 10)
        kill_control_plane(pair.mesh)
        time.sleep(10)  # the lease of every instance ends in this time, if anybody counted
        assert metric(pair.web, "control_plane_connected_state") == 0
        assert not load.failures()

        pair.mesh.restart_control_plane()
        with echo_upstream.in_thread("second") as second:
            newcomer = pair.mesh.up_sidecar("echo", second.port, instance="echo-2")
            address = f"127.0.0.1:{newcomer.inbound}"
            wait_until(lambda: address in endpoints(pair.web, "echo"), 30, "the new endpoint arrives")
            wait_until(lambda: second.requests, 10, "it has its share of the requests")
            time.sleep(2)
            assert endpoints(pair.web, "echo") == {address, f"127.0.0.1:{pair.echo.inbound}"}
            load.stop()
            assert not load.failures()
    assert load.results()["200"] > 500


def test_a_sidecar_that_restarts_while_it_is_gone_serves_what_it_knew(pair: Pair) -> None:
    kill_control_plane(pair.mesh)
    pair.web.process.terminate()
    assert pair.web.process.wait(10) == 0

    again = restart(pair)

    answer = pair.mesh.wait_for(again, "echo")
    assert dict(answer.json()["headers"])["x-forwarded-client-cert"].endswith("/service/web")


def test_a_sidecar_killed_while_it_is_gone_serves_what_it_knew(pair: Pair) -> None:
    # The agent gathers changes for a second before it writes.
    known = pair.mesh.directory / "state" / "web-1" / "configuration.json"
    wait_until(lambda: known.exists() and b"echo" in known.read_bytes(), 5, "the configuration is on disk")
    kill_control_plane(pair.mesh)
    kill(pair.web.process.pid)
    pair.web.process.wait(5)

    again = restart(pair)

    assert pair.mesh.wait_for(again, "echo").status == 200
    pair.mesh.restart_control_plane()
    wait_until(lambda: metric(again, "control_plane_connected_state") == 1, 30, "it is connected again")
    assert pair.mesh.wait_for(again, "echo").status == 200


def restart(pair: Pair) -> Sidecar:
    """The same instance on the same ports with the same files: its join token was used long ago."""
    ports = (pair.web.outbound, pair.web.inbound, pair.web.admin)
    token_file = next(pair.mesh.directory.glob("web-*.token"))
    return pair.mesh.up_sidecar("web", 9, ports=ports, token_file=token_file)
