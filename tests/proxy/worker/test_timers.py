"""The wheel of shared timers, on a clock and a loop of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.worker import timers
from proxy.worker.timers import Timers


class Handle:
    def __init__(self, when: float, callback: Any) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A clock that moves only when told to; what the wheel needs of an event loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.handles: list[Handle] = []
        self.turns = 0

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any) -> Handle:
        handle = Handle(self.now + delay, callback)
        self.handles.append(handle)
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.handles = [handle for handle in self.handles if not handle.cancelled]
            due = [handle for handle in self.handles if handle.when <= end]
            if not due:
                break
            handle = min(due, key=lambda one: one.when)
            self.handles.remove(handle)
            self.now = max(self.now, handle.when)
            self.turns += 1
            assert self.turns < 100_000, "the wheel spins"
            handle.callback()
            assert sum(not one.cancelled for one in self.handles) <= 1, "one timer of the loop at most"
        self.now = end


class Item:
    """Remembers when it was called; `again` is what its deadline moves on by, 0 for no more."""

    def __init__(self, loop: Loop, again: float = 0.0) -> None:
        self.loop = loop
        self.again = again
        self.deadline = 0.0
        self.entered = 0.0
        self.fired: list[tuple[float, float]] = []

    def on_deadline(self, now: float) -> None:
        self.fired.append((self.deadline, now))
        assert len(self.fired) < 1000, "fired without end"
        self.deadline = now + self.again if self.again else self.deadline


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return fake(monkeypatch)


def fake(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(timers, "monotonic", loop.monotonic)
    return loop


def test_a_deadline_fires_once_even_when_its_owner_leaves_it_in_the_past(loop: Loop) -> None:
    wheel, item = Timers(loop), Item(loop)  # type: ignore[arg-type]
    item.deadline = loop.now + 0.5
    wheel.watch(item)
    loop.advance(10)
    assert len(item.fired) == 1


def test_what_is_gone_is_forgotten_within_seconds(loop: Loop) -> None:
    """A connection that ended must not live on in the wheel for its idle timeout of an hour."""
    wheel = Timers(loop)  # type: ignore[arg-type]
    for _ in range(1000):
        item = Item(loop)
        item.deadline = loop.now + 3600
        wheel.watch(item)
        item.deadline = 0.0
        loop.advance(0.01)
    loop.advance(10)
    assert not wheel._buckets
    assert not wheel._order


def test_what_ended_is_forgotten_at_once(loop: Loop) -> None:
    wheel = Timers(loop)  # type: ignore[arg-type]
    items = [Item(loop) for _ in range(100)]
    for number, item in enumerate(items):
        item.deadline = loop.now + 0.1 + number % 3
        wheel.watch(item)
        item.deadline = loop.now + 0.05  # entered again, earlier
        wheel.watch(item)
    assert sum(map(len, wheel._buckets.values())) == 100
    for item in items[1:]:
        wheel.forget(item)
        wheel.forget(item)  # a connection's end may be told twice
    assert sum(map(len, wheel._buckets.values())) == 1
    items[1].deadline = loop.now + 0.2  # and may come back
    wheel.watch(items[1])
    loop.advance(10)
    assert [len(item.fired) for item in items[:3]] == [1, 1, 0]
    assert not any(item.fired for item in items[3:])
    assert not wheel._buckets


def test_an_owner_that_fails_harms_no_other(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Item):
        def on_deadline(self, now: float) -> None:
            raise RuntimeError("a bug")

    wheel = Timers(loop)  # type: ignore[arg-type]
    items = [Item(loop), Bad(loop), Item(loop), Item(loop)]
    for number, item in enumerate(items):
        item.deadline = loop.now + (1.0 if number < 3 else 2.0)
        wheel.watch(item)
    loop.advance(3)
    assert [len(item.fired) for item in items] == [1, 0, 1, 1]
    assert "a bug" in caplog.text


STEP = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 3), st.floats(0.0, 20.0)),
    st.tuples(st.just("clear"), st.integers(0, 3), st.just(0.0)),
    st.tuples(st.just("forget"), st.integers(0, 3), st.just(0.0)),
    st.tuples(st.just("advance"), st.just(0), st.floats(0.0, 8.0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40), st.sampled_from([0.0, 0.3, 7.0]))
def test_nothing_fires_early_late_or_twice(steps: list[tuple[str, int, float]], again: float) -> None:
    """Against the obvious model: each item has at most one deadline, and it is called once within 25 ms after it."""
    with pytest.MonkeyPatch.context() as patch:
        loop = fake(patch)
        wheel = Timers(loop)  # type: ignore[arg-type]
        items = [Item(loop, again) for _ in range(4)]
        for what, which, amount in steps:
            item = items[which]
            if what == "advance":
                before = [len(one.fired) for one in items]
                pending = [one.deadline for one in items]
                loop.advance(amount)
                for one, count, deadline in zip(items, before, pending, strict=True):
                    late = loop.now - deadline
                    if not deadline or late < 0:
                        assert len(one.fired) == count
                    elif late > 0.025:
                        assert len(one.fired) > count
                    new = one.fired[count:]
                    if new:
                        assert new[0][0] in (deadline, 0.0)
                        assert -1e-9 <= new[0][1] - deadline <= 0.025
                    if not again:
                        assert len(new) <= 1
            elif what == "forget":
                wheel.forget(item)
                assert not any(item in bucket for bucket in wheel._buckets.values())
            else:
                item.deadline = loop.now + amount if what == "set" else 0.0
                wheel.watch(item)
