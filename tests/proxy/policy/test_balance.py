"""The pickers: their shares, what they avoid, and that they never give up while there is a host."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.balance import NO_LOCALITY, LoadBalancing, Locality, Metadata
from proxy.policy.balance import Building, Picker
from proxy.policy.balance.latency import Latency
from proxy.policy.balance.peak_ewma import PeakEwma

POLICIES = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV", "PEAK_EWMA"]
SMALL = LoadBalancing(minimum_ring_size=4, maglev_table_size=31)


def build(
    policy: str, hosts: list[Host], draw: Callable[[], float], config: LoadBalancing | None = None
) -> Picker[Host]:
    return Building(policy, config or LoadBalancing(), draw, lambda: 100.0).leaf(hosts)


@dataclass(eq=False)
class Host:
    weight: int = 1
    active: int = 0
    hostname: bytes = b""
    latency: Latency = field(default_factory=Latency)
    since: float = 0.0
    locality: Locality = NO_LOCALITY
    metadata: Metadata = ()
    serving: bool = True
    degraded: bool = False

    @property
    def text(self) -> str:
        return str(id(self))


@given(
    st.sampled_from(POLICIES),
    st.lists(st.integers(1, 128), max_size=8),
    st.lists(st.integers(0, 7), max_size=4),
    st.integers(),
)
def test_a_host_to_avoid_is_picked_only_when_there_is_no_other(
    policy: str, weights: list[int], avoided: list[int], seed: int
) -> None:
    hosts = [Host(weight) for weight in weights]
    avoid = [hosts[index] for index in avoided if index < len(hosts)]
    picker = build(policy, hosts, random.Random(seed).random, SMALL)
    for _ in range(20):
        host = picker.pick(avoid)
        if not hosts:
            assert host is None
        elif len(set(map(id, avoid))) < len(hosts):
            assert host not in avoid
        else:
            assert host in hosts


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers())
def test_round_robin_gives_each_host_its_share_exactly(weights: list[int], seed: int) -> None:
    hosts = [Host(weight) for weight in weights]
    picker = build("ROUND_ROBIN", hosts, random.Random(seed).random)
    rounds = 50
    picked = Counter(id(picker.pick()) for _ in range(rounds * sum(weights)))
    for host in hosts:  # floating-point ties may shift a pick at the edge of the window
        assert abs(picked[id(host)] - rounds * host.weight) <= 2


def shares(picker: Picker[Host], hosts: list[Host], picks: int = 10_000) -> list[float]:
    picked = Counter(id(picker.pick()) for _ in range(picks))
    return [picked[id(host)] / picks for host in hosts]


@pytest.mark.parametrize("policy", ["RANDOM", "LEAST_REQUEST", "PEAK_EWMA"])
def test_shares_of_equals_are_equal(policy: str) -> None:
    hosts = [Host() for _ in range(4)]
    picker = build(policy, hosts, random.Random(7).random)
    assert shares(picker, hosts) == pytest.approx([0.25] * 4, abs=0.02)


@pytest.mark.parametrize("policy", ["RANDOM", "LEAST_REQUEST"])
def test_random_shares_are_near_their_weights(policy: str) -> None:
    hosts = [Host(1), Host(2), Host(5)]
    picker = build(policy, hosts, random.Random(7).random)
    assert shares(picker, hosts) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.02)


def test_least_request_follows_weights_under_load() -> None:
    """Requests that stay: each host ends with its weight's share of them."""
    hosts = [Host(1), Host(2), Host(5)]
    picker = build("LEAST_REQUEST", hosts, random.Random(7).random)
    for _ in range(800):
        host = picker.pick()
        assert host is not None
        host.active += 1
    assert [host.active for host in hosts] == pytest.approx([100, 200, 500], abs=12)


def test_more_choices_find_the_idle_sooner() -> None:
    hosts = [Host(active=1) for _ in range(9)] + [Host()]
    found = [
        shares(build("LEAST_REQUEST", hosts, random.Random(7).random, LoadBalancing(choice_count=choices)), hosts)[-1]
        for choices in (2, 4, 8)
    ]
    assert found[0] == pytest.approx(0.2, abs=0.02)  # it is one of two out of ten
    assert found[0] + 0.1 < found[1]
    assert found[1] + 0.1 < found[2]


EWMA = LoadBalancing(ewma_decay_time=10.0, ewma_default_rtt=0.03)


def test_latency_rises_at_once_and_falls_slowly() -> None:
    latency = Latency()
    assert latency.estimate(100.0, EWMA) == 0.03
    latency.answered(0.010, 100.0, EWMA)  # the first answer counts as it is
    assert latency.estimate(100.0, EWMA) == 0.010
    latency.answered(0.200, 101.0, EWMA)
    assert latency.estimate(101.0, EWMA) == 0.200
    latency.answered(0.010, 102.0, EWMA)
    assert 0.15 < latency.estimate(102.0, EWMA) < 0.2
    assert latency.estimate(112.0, EWMA) == pytest.approx(latency.estimate(102.0, EWMA) / 2.71828, rel=1e-3)


def test_an_error_is_never_good_news() -> None:
    latency = Latency()
    latency.answered(0.100, 100.0, EWMA)
    latency.failed(0.001, 100.5, EWMA)
    assert latency.estimate(100.5, EWMA) > 0.09
    latency.failed(5.0, 101.0, EWMA)
    assert latency.estimate(101.0, EWMA) == 5.0


def test_peak_ewma_leaves_the_slow_one_alone_and_tries_it_again() -> None:
    now = 100.0
    hosts = [Host() for _ in range(10)]
    picker = PeakEwma(hosts, random.Random(3).random, lambda: now, EWMA)
    slow = 0
    for i in range(10_000):  # 100 requests a second for 100 s
        now = 100.0 + i / 100
        host = picker.pick()
        assert host is not None
        slow += host is hosts[0]
        host.latency.answered(0.2 if host is hosts[0] else 0.005, now, EWMA)
    assert 2 <= slow <= 20  # it is asked now and then: it may have recovered


def test_peak_ewma_counts_what_is_in_flight() -> None:
    hosts = [Host(active=9), Host()]
    hosts[0].latency.answered(0.010, 100.0, EWMA)
    hosts[1].latency.answered(0.050, 100.0, EWMA)
    picker = PeakEwma(hosts, random.Random(3).random, lambda: 100.0, EWMA)
    assert picker.pick() is hosts[1]
    hosts[0].active = 3
    assert picker.pick() is hosts[0]


def test_least_request_prefers_the_idle_and_the_heavy() -> None:
    busy, idle = Host(active=10), Host()
    picker = build("LEAST_REQUEST", [busy, idle], random.Random(1).random)
    assert all(picker.pick() is idle for _ in range(100))
    small, big = Host(weight=1, active=1), Host(weight=10, active=5)
    picker = build("LEAST_REQUEST", [small, big], random.Random(1).random)
    assert all(picker.pick() is big for _ in range(100))
