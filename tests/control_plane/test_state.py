"""The state of the mesh: apply is all or nothing, leases run on a clock, and both survive a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.errors import FullError, StartError
from control_plane.leases import Instance
from control_plane.mesh import ConfigError
from control_plane.state import MeshState
from control_plane.store import Store

CART = "kind: Service\nname: cart\n"
PAYMENTS = "kind: Service\nname: payments\nroutes: [{backendRefs: [{name: cart}]}]\n"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "mesh.db")
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def start(store: Store, clock: Clock) -> MeshState:
    state = MeshState(store, "pillion.local", clock)
    await state.load()
    return state


async def test_apply_adds_changes_and_leaves(store: Store, clock: Clock) -> None:
    state = await start(store, clock)
    calls: list[int] = []
    stop = state.subscribe(lambda: calls.append(state.revision))
    change = await state.apply([("a.yaml", PAYMENTS + "---\n" + CART)], False, "test")
    assert (change.revision, change.added) == (1, ("cart", "payments"))
    change = await state.apply([("a.yaml", CART)], False, "test")
    assert (change.revision, change.unchanged) == (1, ("cart",))
    change = await state.apply([("a.yaml", CART + "versions: {v1: {labels: {version: v1}}}\n")], True, "test")
    assert (change.revision, change.changed) == (1, ("cart",))
    assert not state.services["cart"].service.versions
    change = await state.apply([("a.yaml", CART + "versions: {v1: {labels: {version: v1}}}\n")], False, "test")
    assert (change.revision, change.changed) == (2, ("cart",))
    assert calls == [1, 2]
    stop()
    await state.apply([("a.yaml", CART)], False, "test")
    assert calls == [1, 2]

    again = await start(store, clock)
    assert again.revision == 3
    assert again.services == state.services
    assert {name: (it.yaml, it.revision) for name, it in again.applied.items()} == {
        name: (it.yaml, it.revision) for name, it in state.applied.items()
    }


async def test_an_error_anywhere_changes_nothing(store: Store, clock: Clock) -> None:
    state = await start(store, clock)
    await state.apply([("a.yaml", CART)], False, "test")
    before = dict(state.applied)
    for bad, place in (
        ("- a list\n", "b.yaml:1:1"),
        (PAYMENTS.replace("routes", "routs"), "b.yaml:3:1"),
        (PAYMENTS.replace("cart", "nope"), "b.yaml:3:32"),
    ):
        with pytest.raises(ConfigError, match=place):
            await state.apply([("a.yaml", CART + "protocol: http\n"), ("b.yaml", bad)], False, "test")
    assert (state.revision, state.applied) == (1, before)
    assert (await start(store, clock)).revision == 1


async def test_a_stored_service_that_cannot_be_read_stops_the_start(store: Store, clock: Clock) -> None:
    await store.run(lambda db: db.execute("INSERT INTO service VALUES ('cart', 'kind: Nonsense', 1)"))
    with pytest.raises(StartError, match="stored service cart"):
        await start(store, clock)


async def test_leases_end_and_a_restart_grants_a_fresh_one(store: Store, clock: Clock) -> None:
    state = await start(store, clock)
    changes: list[int] = []
    state.subscribe(lambda: changes.append(len(state.instances)))
    a, b = Instance("cart", "a", "127.0.0.1", 1), Instance("cart", "b", "127.0.0.1", 2, {"version": "v1"}, 3)
    assert await state.registry.register(a, 0) == 10
    assert await state.registry.register(b, 20) == 20
    assert await state.registry.register(b, 20) == 20  # nothing new: no notification
    clock.now += 10
    state.registry.expire()
    assert dict(state.instances) == {b.key: b}
    assert changes == [1, 2, 1]
    assert state.registry.heartbeat("cart", "a") is None
    assert state.registry.heartbeat("cart", "b") == 20
    await state.registry.register(a, 10)
    state.registry.close()

    clock.now += 100  # the control plane was away
    again = await start(store, clock)
    assert dict(again.instances) == {a.key: a, b.key: b}
    clock.now += 9.9
    again.registry.expire()
    assert len(again.instances) == 2
    clock.now += 0.1
    again.registry.expire()
    assert dict(again.instances) == {b.key: b}
    await again.registry.deregister("cart", "b")
    assert not again.instances
    again.registry.close()

    last = await start(store, clock)
    assert not last.instances
    last.registry.close()


async def test_time_in_which_nobody_could_be_heard_does_not_count(store: Store, clock: Clock) -> None:
    state = await start(store, clock)
    a = Instance("cart", "a", "127.0.0.1", 1)
    await state.registry.register(a, 1)
    clock.now += 60  # this process was stopped for a minute: no heartbeat could come in
    state.registry._on_timer()
    assert dict(state.instances) == {a.key: a}
    clock.now += 1
    state.registry._on_timer()
    assert not state.instances
    state.registry.close()


async def test_a_large_apply_takes_time_in_proportion_and_there_is_a_bound(store: Store, clock: Clock) -> None:
    state = await start(store, clock)
    document = "---\n".join(f"kind: Service\nname: s{i}\n" for i in range(10_000))
    stalls, last = [0.0], time.monotonic()

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        stalls.append(now - last)
        last, handle[0] = now, loop.call_later(0.01, beat)

    loop = asyncio.get_running_loop()
    handle = [loop.call_later(0.01, beat)]
    change = await state.apply([("big", document)], False, "test")
    handle[0].cancel()
    assert len(change.added) == 10_000
    assert max(stalls) < 1.0  # heartbeats are heard meanwhile
    with pytest.raises(FullError, match="10001 services; at most 10000"):
        await state.apply([("one", "kind: Service\nname: more\n")], False, "test")
    state.registry.close()
