"""kill -9 of one of two instances under load: the other answers for it."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass

import pytest

from pillion.demo.mesh import Sidecar
from pillion.demo.processes import Process
from tests.support.harness import Harness, endpoints, kill
from tests.support.load import Load
from tests.support.wait import wait_until

IN_FLIGHT = 0.1
"""Seconds after a kill in which a request may still have been on its way to the dead one."""


@dataclass
class Instance:
    app: Process
    port: int
    sidecar: Sidecar


@dataclass(frozen=True)
class Carts:
    mesh: Harness
    web: Sidecar
    first: Instance
    second: Instance


@pytest.fixture(scope="module")
def carts(bare_mesh: Harness) -> Carts:
    bare_mesh.apply("kind: Service\nname: web\n---\nkind: Service\nname: cart\n")
    web = bare_mesh.start_sidecar("web", 9)
    instances = []
    for number in (1, 2):
        app, port = bare_mesh.up_app("cart", f"v{number}")
        sidecar = bare_mesh.up_sidecar("cart", port, instance=f"cart-{number}")
        instances.append(Instance(app, port, sidecar))
    wait_until(web.ready, 30)
    bare_mesh.wait_for(web, "cart")
    return Carts(bare_mesh, web, *instances)


@pytest.mark.parametrize("what", ["app", "sidecar", "app and sidecar"])
def test_the_other_instance_answers(carts: Carts, what: str) -> None:
    carts.mesh.wait_for_endpoints(carts.web, "cart", 2)
    victim = carts.second
    pids = [victim.app.pid] if "app" in what else []
    pids += [victim.sidecar.process.pid] if "sidecar" in what else []

    with Load(carts.web.outbound, "cart", rate=100) as load:
        wait_until(lambda: load.results()["200"] >= 100, 10)
        killed = time.monotonic()
        kill(*pids)
        time.sleep(3)
        if what == "app and sidecar":
            alone = {f"127.0.0.1:{carts.first.sidecar.inbound}"}
            wait_until(lambda: endpoints(carts.web, "cart") == alone, 15, "the lease has ended")
        time.sleep(1)
    revive(carts, what)

    failed = [o for o in load.failures() if o.began > killed + IN_FLIGHT or o.ended < killed]
    assert not failed, [(o.result, f"{o.began - killed:+.3f} s", o.body[:200]) for o in failed]
    print(load.results())
    assert len(load.failures()) <= 3  # what was in flight in the dead one


def revive(carts: Carts, what: str) -> None:
    """Start again what was killed, on the same ports."""
    victim = carts.second
    if "app" in what:
        victim.app.wait(5)
        command = [sys.executable, "-m", "pillion.demo.services", "cart", "--port", str(victim.port)]
        victim.app = carts.mesh.start_app("cart v2 app", [*command, "--version", "v2"])
        wait_until(lambda: victim.app.find("ready"), 30)
    if "sidecar" in what:
        assert victim.sidecar.process.wait(5) == -signal.SIGKILL
        old = victim.sidecar
        ports = (old.outbound, old.inbound, old.admin)
        victim.sidecar = carts.mesh.up_sidecar("cart", victim.port, instance="cart-2", ports=ports)
