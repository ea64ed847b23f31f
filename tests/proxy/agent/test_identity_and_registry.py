"""Identity and registration against a control plane: the real one, in this process, over its TLS port."""

import asyncio
import dataclasses
import socket
import time
from contextlib import asynccontextmanager

import pytest

from pillion.client import TokenFile, bearer
from pillion.v1 import mesh_pb2 as pb
from proxy.agent.errors import StartError
from proxy.agent.identity import Identity
from proxy.agent.registration import (
    Do,
    Registrar,
    Registration,
    accepts_connections,
    local_address_towards,
)
from proxy.agent.state_dir import StateDir
from tests.support import plane

ID = "spiffe://pillion.local/service/cart"


def token_file(token, roots="ROOTS"):
    return TokenFile(ID, "pillion.local", "cart", token, roots)


@asynccontextmanager
async def task(work):
    running = asyncio.create_task(work)
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is awaited happens on a real connection
            await asyncio.sleep(0.01)


async def test_join_then_restart_then_renewal_by_session(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        token, seen = token_file(await mesh.token("cart")), []
        state = StateDir(tmp_path / "s")
        first = Identity(token, mesh.channel, state, seen.append)
        await first.join()
        assert seen == [first.current]
        # A join token is used once: a second sidecar with it is refused for good.
        with pytest.raises(StartError, match=r"refuses spiffe://pillion\.local/service/cart"):
            await Identity(token, mesh.channel, StateDir(tmp_path / "other"), seen.append).join()
        # A restart with the same token file needs no join, and renews by session, with a new key.
        again = Identity(token, mesh.channel, state, seen.append)
        assert again.restore()
        assert again.current == first.current
        async with task(again.keep_fresh()):
            await until(lambda: again.current != first.current)
        assert again.current.key_pem != first.current.key_pem
        assert state.load_identity(token.token, time.time()) == again.current


async def test_a_refused_session_falls_back_to_the_join_token(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        seen, state = [], StateDir(tmp_path / "s")
        old = Identity(token_file(await mesh.token("cart")), mesh.channel, state, seen.append)
        await old.join()
        fresh = token_file(await mesh.token("cart"))
        state.save_identity(dataclasses.replace(old.current, session_token="forgotten"), fresh.token)
        again = Identity(fresh, mesh.channel, state, seen.append)
        assert again.restore()
        async with task(again.keep_fresh()):
            await until(lambda: again.session_token not in ("forgotten", ""))


async def test_renewal_comes_at_half_life(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        seen, now = [], [time.time()]
        token = token_file(await mesh.token("cart"))
        subject = Identity(token, mesh.channel, StateDir(tmp_path / "s"), seen.append, clock=lambda: now[0])
        await subject.join()
        now[0] = subject.current.not_before + (subject.current.expires - subject.current.not_before) * 0.4
        async with task(subject.keep_fresh()) as renewal:
            await asyncio.sleep(0.05)
            assert len(seen) == 1
            renewal.cancel()
        now[0] = subject.current.not_before + (subject.current.expires - subject.current.not_before) * 0.6
        async with task(subject.keep_fresh()):
            await until(lambda: len(seen) == 2)


async def test_a_token_for_another_service_is_refused_by_the_control_plane_too(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        token = token_file(await mesh.token("web"))
        with pytest.raises(StartError):
            await Identity(token, mesh.channel, StateDir(tmp_path / "s"), lambda _svid: None).join()


async def instances(mesh):
    status = await mesh.mesh.Status(pb.StatusRequest(), metadata=mesh.operator)
    return [(i.service, i.id, i.host, i.port, dict(i.labels)) for i in status.instances]


async def test_the_instance_is_registered_while_its_app_accepts(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.agent.registration.PROBE_INTERVAL", 0.02)
    async with plane.running(tmp_path / "cp") as mesh:
        session = dict(await mesh.join("cart"))["authorization"].removeprefix("Bearer ")
        instance = pb.Instance(service="cart", id="c1", host="127.0.0.1", port=15006, labels={"version": "v1"})
        with socket.create_server(("127.0.0.1", 0)) as app:
            port = app.getsockname()[1]
            subject = Registration(instance, port, mesh.channel, lambda: session, lambda: None)
            async with task(subject.run()):
                await until(lambda: subject._registrar.registered)
                assert await instances(mesh) == [("cart", "c1", "127.0.0.1", 15006, {"version": "v1"})]
                app.close()
                await until(lambda: not subject._registrar.registered)
                assert await instances(mesh) == []
                with socket.create_server(("127.0.0.1", port)):
                    await until(lambda: subject._registrar.registered)
        assert len(await instances(mesh)) == 1
        await subject.leave()
        assert await instances(mesh) == []
        await subject.leave()  # and again


async def test_an_application_that_is_not_there_is_told_once_each_time(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("proxy.agent.registration.PROBE_INTERVAL", 0.02)
    caplog.set_level("INFO", "proxy.agent.registration")

    def told():
        return [(r.levelname, r.getMessage()) for r in caplog.records if "application" in r.getMessage()]

    async with plane.running(tmp_path / "cp") as mesh:
        session = dict(await mesh.join("cart"))["authorization"].removeprefix("Bearer ")
        instance = pb.Instance(service="cart", id="c1", host="127.0.0.1", port=15006)
        with socket.create_server(("127.0.0.1", 0)) as app:
            port = app.getsockname()[1]
        subject = Registration(instance, port, mesh.channel, lambda: session, lambda: None)
        where = f"on 127.0.0.1:{port}"
        waiting = ("WARNING", f"waiting for the application {where}; not registered until it accepts")
        there = ("INFO", f"the application accepts {where}")
        gone = (
            "WARNING",
            f"the application is gone, waiting for it {where}; not registered until it accepts",
        )
        async with task(subject.run()):
            await until(told)
            await asyncio.sleep(0.2)
            assert told() == [waiting]
            with socket.create_server(("127.0.0.1", port)):
                await until(lambda: subject._registrar.registered)
                assert told() == [waiting, there]
            await until(lambda: not subject._registrar.registered)
            await asyncio.sleep(0.2)
            assert told() == [waiting, there, gone]
            with socket.create_server(("127.0.0.1", port)):
                await until(lambda: subject._registrar.registered)
            assert told() == [waiting, there, gone, there]


async def test_a_registration_that_the_registry_lost_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.agent.registration.PROBE_INTERVAL", 0.02)
    async with plane.running(tmp_path / "cp") as mesh:
        session = dict(await mesh.join("cart"))["authorization"].removeprefix("Bearer ")
        instance = pb.Instance(service="cart", id="c1", host="127.0.0.1", port=15006)
        with socket.create_server(("127.0.0.1", 0)) as app:
            subject = Registration(instance, app.getsockname()[1], mesh.channel, lambda: session, lambda: None)
            async with task(subject.run()):
                await until(lambda: subject._registrar.registered)
                forget = pb.DeregisterRequest(service="cart", id="c1")
                await mesh.registry.Deregister(forget, metadata=bearer(session))
                subject._registrar._next = 0.0  # the next heartbeat is due
                async with asyncio.timeout(5):
                    while await instances(mesh) == []:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)


async def test_a_refused_session_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.agent.registration.PROBE_INTERVAL", 0.02)
    async with plane.running(tmp_path / "cp") as mesh:
        refused = []
        instance = pb.Instance(service="cart", id="c1", host="127.0.0.1", port=15006)
        with socket.create_server(("127.0.0.1", 0)) as app:
            port = app.getsockname()[1]
            subject = Registration(instance, port, mesh.channel, lambda: "stale", lambda: refused.append(1))
            async with task(subject.run()):
                await until(lambda: refused)
        assert await instances(mesh) == []


def test_registrar_heartbeats_at_a_third_of_the_lease():
    subject = Registrar()
    assert subject.probed(0.0, False) is Do.NOTHING
    assert subject.probed(1.0, True) is Do.REGISTER
    subject.done(1.0, 9.0)
    assert subject.probed(2.0, True) is Do.NOTHING
    assert subject.probed(3.9, True) is Do.NOTHING
    assert subject.probed(4.0, True) is Do.HEARTBEAT


def test_registrar_takes_out_after_two_failures_in_a_row():
    subject = Registrar()
    subject.probed(0.0, True)
    subject.done(0.0, 10.0)
    assert subject.probed(1.0, False) is Do.NOTHING
    assert subject.probed(2.0, True) is Do.NOTHING
    assert subject.probed(3.0, False) is Do.NOTHING
    assert subject.probed(3.1, False) is Do.DEREGISTER
    subject.unknown(3.1)
    assert subject.probed(4.0, False) is Do.NOTHING
    assert subject.probed(5.0, True) is Do.REGISTER


def test_registrar_registers_again_when_the_lease_is_gone_and_retries_soon():
    subject = Registrar()
    subject.probed(0.0, True)
    subject.done(0.0, 10.0)
    subject.unknown(3.4)
    assert subject.probed(3.4, True) is Do.REGISTER
    subject.failed(3.4)
    assert subject.probed(3.5, True) is Do.NOTHING
    assert subject.probed(4.4, True) is Do.REGISTER


async def test_probe():
    with socket.create_server(("127.0.0.1", 0)) as app:
        port = app.getsockname()[1]
        assert await accepts_connections(port)
    assert not await accepts_connections(port)


def test_local_address():
    assert local_address_towards("127.0.0.1:15010") == "127.0.0.1"


async def test_a_clock_that_is_ahead_does_not_renew_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.agent.identity.MIN_RENEWAL", 0.01)
    async with plane.running(tmp_path / "cp") as mesh:
        seen = []
        identity = Identity(
            token_file(await mesh.token("cart")),
            mesh.channel,
            StateDir(tmp_path / "s"),
            seen.append,
            lambda: time.time() + 20 * 3600,  # past the half of every certificate that it gets
        )
        await identity.join()
        async with task(identity.keep_fresh()):
            await asyncio.sleep(0.5)
            assert len(seen) == 2
            identity.token_refused()  # this is a reason
            await until(lambda: len(seen) == 3)
