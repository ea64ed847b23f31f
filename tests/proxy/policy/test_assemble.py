"""Priorities, degraded endpoints, panic and locality weights over the pickers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.balance import NO_LOCALITY, LoadBalancing, Locality, Metadata, SlowStart, Subsets, SubsetSelector
from proxy.policy.balance import Building, Context, Picker, assemble
from proxy.policy.balance.latency import Latency
from proxy.policy.balance.priority import Level, loads
from proxy.policy.balance.slow_start import share

POLICIES = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV", "PEAK_EWMA"]


@dataclass(eq=False)
class Host:
    text: str
    locality: Locality = NO_LOCALITY
    serving: bool = True
    degraded: bool = False
    weight: int = 1
    active: int = 0
    hostname: bytes = b""
    latency: Latency = field(default_factory=Latency)
    since: float = 0.0
    metadata: Metadata = ()


def hosts(count: int, bad: int = 0, degraded: int = 0, **where: object) -> list[Host]:
    """`bad` of them are unhealthy, the next `degraded` ones are degraded."""
    place = Locality(**where)  # type: ignore[arg-type]
    return [Host(f"{place}{i}", place, i >= bad + degraded, bad <= i < bad + degraded) for i in range(count)]


def picker(some: Sequence[Host], policy: str = "ROUND_ROBIN", factor: int = 140, **options: object) -> Picker[Host]:
    config = LoadBalancing(minimum_ring_size=64, maglev_table_size=1009)
    config = LoadBalancing(**{**{n: getattr(config, n) for n in config.__slots__}, **options})  # type: ignore[arg-type]
    return assemble(Building(policy, config, random.Random(11).random, lambda: 100.0), some, factor)


def shares(of: Picker[Host], *groups: Sequence[Host], picks: int = 4000) -> list[float]:
    """Each group's share; requests have hashes of their own."""
    draw = random.Random(5)
    found = Counter(id(of.pick((), Context(draw.getrandbits(64)))) for _ in range(picks))
    return [sum(found[id(host)] for host in group) / picks for group in groups]


# The tables of Envoy's documentation: "Priority levels", "Degraded endpoints", "Panic threshold".
@pytest.mark.parametrize(
    ("healthy", "expected"),
    [
        ((100, 100), (100, 0)),
        ((72, 100), (100, 0)),
        ((71, 100), (99, 1)),
        ((50, 100), (70, 30)),
        ((25, 100), (35, 65)),
        ((0, 100), (0, 100)),
        ((25, 25), (50, 50)),
        ((5, 5, 60), (8, 7, 85)),
        ((20, 20, 10), (40, 40, 20)),
    ],
)
def test_the_load_of_priorities(healthy: tuple[int, ...], expected: tuple[int, ...]) -> None:
    found = loads([Level(100, one) for one in healthy], 140, 0.0)
    assert [load.healthy for load in found] == list(expected)
    assert not any(load.panic for load in found)


def test_degraded_endpoints_take_what_no_priority_can() -> None:
    found = loads([Level(100, 5, 95), Level(100, 5, 0)], 100, 0.0)
    assert [(load.healthy, load.degraded) for load in found] == [(5, 90), (5, 0)]
    found = loads([Level(100, 50, 50), Level(100, 100, 0)], 140, 0.0)
    assert [(load.healthy, load.degraded) for load in found] == [(70, 0), (30, 0)]


@pytest.mark.parametrize(
    ("levels", "panic", "expected"),
    [
        ([(100, 72), (100, 72)], [False, False], [100, 0]),
        ([(100, 25), (100, 65)], [False, False], [35, 65]),  # together they are whole: no panic
        ([(100, 5), (100, 65)], [True, False], [7, 93]),
        ([(100, 5), (100, 5)], [True, True], [50, 50]),
        ([(30, 1), (10, 1)], [True, True], [75, 25]),  # by their size
        ([(10, 0)], [True], [100]),
    ],
)
def test_panic(levels: list[tuple[int, int]], panic: list[bool], expected: list[int]) -> None:
    found = loads([Level(*level) for level in levels], 140, 50.0)
    assert [load.panic for load in found] == panic
    assert [load.healthy for load in found] == pytest.approx(expected, abs=2)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=4),
    st.integers(1, 300),
    st.sampled_from([0.0, 50.0, 100.0]),
)
def test_the_load_is_always_all_of_it(counts: list[tuple[int, int, int]], factor: int, threshold: float) -> None:
    levels = [Level(healthy + degraded + bad, healthy, degraded) for healthy, degraded, bad in counts]
    found = loads(levels, factor, threshold)
    assert sum(load.healthy + load.degraded for load in found) == (100 if levels else 0)
    assert all(load.healthy >= 0 and load.degraded >= 0 for load in found)
    assert all(level.healthy for level, load in zip(levels, found, strict=True) if load.healthy and not load.panic) or (
        threshold == 0 and not any(level.healthy + level.degraded for level in levels)
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_priority_gets_what_is_missing(policy: str) -> None:
    first, second = hosts(10, bad=5), hosts(10, priority=1)
    assert shares(picker([*second, *first], policy), first, second) == pytest.approx([0.7, 0.3], abs=0.03)
    assert shares(picker([*second, *first], policy, 200), first, second) == [1.0, 0.0]
    assert shares(picker([*second, *hosts(10, bad=10)], policy), second) == [1.0]


def test_priorities_may_have_gaps() -> None:
    assert shares(picker(hosts(3, priority=7)), hosts(0)) == [0.0]
    low = hosts(3, priority=7)
    assert shares(picker([*low, *hosts(2, bad=2, priority=3)]), low) == [1.0]


@pytest.mark.parametrize("policy", ["RING_HASH", "MAGLEV"])
def test_a_request_stays_with_its_priority(policy: str) -> None:
    of = picker([*hosts(10, bad=5), *hosts(10, priority=1)], policy)
    for key in range(0, 1 << 64, 1 << 59):
        assert len({id(of.pick((), Context(key))) for _ in range(5)}) == 1


def test_in_panic_health_is_not_looked_at() -> None:
    some = hosts(10, bad=6)
    assert shares(picker(some), some[:6], some[6:]) == [0.6, 0.4]
    assert shares(picker(some, healthy_panic_threshold=0.0), some[:6]) == [0.0]
    assert picker(hosts(3, bad=3), healthy_panic_threshold=0.0).pick() is None
    assert picker([]).pick() is None


@pytest.mark.parametrize("policy", POLICIES)
def test_localities_get_the_shares_of_their_weights(policy: str) -> None:
    near, far, none = hosts(2, zone="a", weight=3), hosts(5, zone="b", weight=1), hosts(5, zone="c")
    some = [*far, *none, *near]
    of = picker(some, policy, locality_weighted=True)
    assert shares(of, near, far, none) == pytest.approx([0.75, 0.25, 0.0], abs=0.05)
    assert shares(picker(some, policy), near, far, none) == pytest.approx([2 / 12, 5 / 12, 5 / 12], abs=0.07)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_locality_that_is_ill_gets_less(policy: str) -> None:
    ill, well = hosts(10, bad=6, zone="a", weight=1), hosts(10, zone="b", weight=1)
    # 4 of 10 healthy, by 1.4: 0.56 of what its weight says.
    of = picker([*ill, *well], policy, locality_weighted=True)
    assert shares(of, ill, well) == pytest.approx([0.56 / 1.56, 1 / 1.56], abs=0.04)


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST"])
def test_slow_start(policy: str) -> None:
    slow = SlowStart(10.0)
    now = 100.0
    some = hosts(4)
    some[0].since = 100.0
    config = LoadBalancing(slow_start=slow)
    of = assemble(Building(policy, config, random.Random(11).random, lambda: now), some)
    for moment, weight in ((100.0, 0.1), (103.0, 0.3), (108.0, 0.8), (110.0, 1.0), (200.0, 1.0)):
        now = moment
        assert shares(of, some[:1]) == pytest.approx([weight / (3 + weight)], abs=0.03)
    # Who is alone gets all of it.
    now = 100.0
    alone = assemble(Building(policy, config, random.Random(11).random, lambda: now), some[:1])
    assert alone.pick() is some[0]


def test_the_growth_of_slow_start() -> None:
    assert share(0.0, SlowStart(10.0)) == 0.1
    assert share(5.0, SlowStart(10.0)) == 0.5
    assert share(5.0, SlowStart(10.0, 2.0)) == pytest.approx(0.707, abs=0.001)  # faster at first
    assert share(5.0, SlowStart(10.0, 0.5, 50.0)) == 0.5  # its square would be less than the least
    assert share(11.0, SlowStart(10.0)) == 1.0


def versions(*names: str, **more: str) -> list[Host]:
    """Two endpoints of each version."""
    pairs = tuple(more.items())
    return [Host(f"{n}{i}", metadata=tuple(sorted((("v", n), *pairs)))) for n in names for i in range(2)]


def asked(of: Picker[Host], some: Sequence[Host], **wanted: str) -> set[str]:
    """Who is picked for this metadata_match."""
    context = Context(None, tuple(sorted(wanted.items())))
    return {host.text for host in (of.pick((), context) for _ in range(12)) if host is not None}


def test_subsets() -> None:
    some = versions("1", "2", stage="prod") + versions("3", stage="test")
    selectors = (
        SubsetSelector(("v",)),
        SubsetSelector(("stage",), "NO_FALLBACK"),
        SubsetSelector(("stage", "v"), "KEYS_SUBSET", ("stage",)),
        SubsetSelector(("x",), "ANY_ENDPOINT"),
    )
    of = picker(some, subsets=Subsets(selectors, "DEFAULT_SUBSET", (("v", "1"),)))
    assert asked(of, some, v="2") == {"20", "21"}
    assert asked(of, some, stage="prod") == {"10", "11", "20", "21"}
    assert asked(of, some, stage="test", v="3") == {"30", "31"}
    assert asked(of, some, stage="test", v="9") == {"30", "31"}  # fewer keys
    assert asked(of, some, stage="none", v="9") == set()  # of which there is none, and that selector falls back to none
    assert asked(of, some, v="9") == {"10", "11"}  # the cluster's fallback: its default
    assert asked(of, some, unknown="1") == {"10", "11"}
    assert asked(of, some, x="1") == {host.text for host in some}
    assert asked(of, some) == {"10", "11"}
    strict = picker(some, subsets=Subsets(selectors))
    assert (asked(strict, some), asked(strict, some, v="1")) == (set(), {"10", "11"})


def test_a_subset_has_its_own_health_and_retries_stay_in_it() -> None:
    some = versions("1", "2")
    some[0].serving = False
    of = picker(some, subsets=Subsets((SubsetSelector(("v",)),), "ANY_ENDPOINT"))
    assert asked(of, some, v="1") == {"11"}
    tried = [some[2], some[3]]
    assert of.pick(tried, Context(None, (("v", "2"),))) in tried


HOSTS = st.lists(
    st.builds(
        lambda name, priority, zone, weight, state: Host(
            str(name), Locality(priority, weight, "", zone), state == "up", state == "degraded"
        ),
        st.integers(0, 10**6),
        st.integers(0, 2),
        st.sampled_from("ab"),
        st.integers(1, 3),
        st.sampled_from(["up", "up", "down", "degraded"]),
    ),
    max_size=8,
    unique_by=lambda host: host.text,
)


@given(st.sampled_from(POLICIES), HOSTS, st.booleans(), st.sets(st.integers(0, 7)), st.integers())
def test_a_healthy_endpoint_is_found_if_there_is_one(
    policy: str, some: list[Host], weighted: bool, tried: set[int], seed: int
) -> None:
    config = LoadBalancing(
        minimum_ring_size=4, maglev_table_size=31, healthy_panic_threshold=0.0, locality_weighted=weighted
    )
    of = assemble(Building(policy, config, random.Random(seed).random, lambda: 100.0), some)
    avoid = [some[index] for index in tried if index < len(some)]
    usable = [host for host in some if host.serving or host.degraded]
    fresh = [host for host in usable if host not in avoid]
    for key in range(0, 1 << 64, 1 << 61):
        host = of.pick(avoid, Context(key))
        assert (host in usable) if usable else (host is None)
        assert host in fresh or not fresh
