"""The lease table by virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import leases
from control_plane.errors import FullError, RequestError
from control_plane.leases import Instance, Leases, check_instance, check_lease


def instance(name: str = "a", service: str = "cart", **more: object) -> Instance:
    return Instance(service, name, "127.0.0.1", 8080, **more)  # type: ignore[arg-type]


def test_an_instance_without_heartbeats_is_gone_when_its_lease_ends() -> None:
    table = Leases()
    assert table.register(instance(), 10, now=0)
    assert table.expire(9.99) == []
    assert table.next_deadline() == 10
    assert table.expire(10) == [instance()]
    assert len(table) == 0
    assert table.next_deadline() is None


def test_heartbeats_keep_an_instance_and_end_with_its_lease() -> None:
    table = Leases()
    table.register(instance(), 10, now=0)
    for now in range(3, 60, 3):
        assert table.heartbeat("cart", "a", now) == 10
        assert table.expire(now) == []
    assert table.heartbeat("cart", "a", 67) is None
    assert table.heartbeat("cart", "b", 58) is None
    assert table.expire(67) == [instance()]


def test_registering_again_replaces_and_tells_whether_something_changed() -> None:
    table = Leases()
    table.register(instance(), 10, now=0)
    assert not table.register(instance(), 10, now=5)
    assert table.register(instance(weight=2), 10, now=5)
    assert [lease.instance.weight for lease in table] == [2]
    assert table.expire(14.9) == []


def test_a_shorter_lease_ends_sooner() -> None:
    table = Leases()
    table.register(instance(), 300, now=0)
    table.register(instance(), 2, now=1)
    assert table.next_deadline() == 3
    assert table.expire(3) == [instance()]
    assert table.expire(1000) == []


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_INSTANCES", 2)
    table = Leases()
    table.register(instance("a"), 10, now=0)
    table.register(instance("b"), 10, now=0)
    with pytest.raises(FullError, match="2 instances"):
        table.register(instance("c"), 10, now=0)
    assert not table.register(instance("a"), 10, now=0)


def test_coming_and_going_does_not_grow_the_heap() -> None:
    table = Leases()
    for _ in range(1000):
        table.register(instance(), 300, now=0)
        table.deregister("cart", "a")
    assert len(table._heap) <= 65


operations = st.lists(
    st.tuples(
        st.sampled_from(["register", "heartbeat", "deregister", "expire"]),
        st.sampled_from("abc"),
        st.integers(1, 20),  # seconds of a lease
        st.integers(0, 7),  # seconds until the next operation
    ),
    max_size=60,
)


@given(operations)
def test_it_holds_exactly_those_whose_deadline_is_ahead(steps: list[tuple[str, str, int, int]]) -> None:
    table, model, now = Leases(), dict[str, tuple[float, float]](), 0.0
    for operation, name, seconds, pause in steps:
        if operation == "register":
            table.register(instance(name), seconds, now)
            model[name] = (now + seconds, seconds)
        elif operation == "heartbeat":
            alive = name in model and model[name][0] > now
            assert table.heartbeat("cart", name, now) == (model[name][1] if alive else None)
            if alive:
                model[name] = (now + model[name][1], model[name][1])
        elif operation == "deregister":
            assert table.deregister("cart", name) == (name in model)
            model.pop(name, None)
        gone = {key for key, (deadline, _) in model.items() if deadline <= now}
        if gone:
            due = table.next_deadline()
            assert due is not None
            assert due <= now
        assert {it.id for it in table.expire(now)} == gone
        model = {key: value for key, value in model.items() if key not in gone}
        assert {lease.instance.id for lease in table} == set(model)
        now += pause


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"service": "Cart"}, "instance.service"),
        ({"service": "inbound"}, "reserved"),
        ({"id": ""}, "instance.id"),
        ({"id": "a/b"}, "instance.id"),
        ({"host": ""}, "instance.host"),
        ({"host": "0.0.0.0"}, "instance.host"),
        ({"host": "1.2.3.400"}, "instance.host"),
        ({"host": "cart-1.local"}, "instance.host"),
        ({"port": 0}, "instance.port"),
        ({"port": 65536}, "instance.port"),
        ({"weight": 129}, "instance.weight"),
        ({"labels": {str(n): "" for n in range(33)}}, "instance.labels"),
        ({"labels": {"k": "v" * 257}}, "instance.labels"),
    ],
)
def test_bad_instances_are_refused_by_field(change: dict[str, object], place: str) -> None:
    good: dict[str, object] = {"service": "cart", "id": "a-1", "host": "10.0.0.1", "port": 80}
    check_instance(Instance(**good))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=place):
        check_instance(Instance(**(good | change)))  # type: ignore[arg-type]


def test_leases_have_a_default_and_bounds() -> None:
    assert check_lease(0) == 10
    assert check_lease(1) == 1
    assert check_lease(300) == 300
    for bad in (0.5, 301, -1):
        with pytest.raises(RequestError, match="lease"):
            check_lease(bad)
