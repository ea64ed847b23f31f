"""The pickers: their shares, what they avoid, and that they never give up while there is a host."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.balance import LoadBalancing
from proxy.policy.balance import build

POLICIES = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"]
SMALL = LoadBalancing(minimum_ring_size=4, maglev_table_size=31)


@dataclass(eq=False)
class Host:
    weight: int = 1
    active: int = 0
    hostname: bytes = b""

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


@pytest.mark.parametrize("policy", ["RANDOM", "LEAST_REQUEST"])
def test_random_shares_are_near_their_weights(policy: str) -> None:
    hosts = [Host(1), Host(1), Host(1)] if policy == "LEAST_REQUEST" else [Host(1), Host(2), Host(5)]
    picker = build(policy, hosts, random.Random(7).random)
    picked = Counter(id(picker.pick()) for _ in range(20_000))
    total = sum(host.weight for host in hosts)
    for host in hosts:
        assert picked[id(host)] / 20_000 == pytest.approx(host.weight / total, abs=0.02)


def test_least_request_prefers_the_idle_and_the_heavy() -> None:
    busy, idle = Host(active=10), Host()
    picker = build("LEAST_REQUEST", [busy, idle], random.Random(1).random)
    assert all(picker.pick() is idle for _ in range(100))
    small, big = Host(weight=1, active=1), Host(weight=10, active=5)
    picker = build("LEAST_REQUEST", [small, big], random.Random(1).random)
    assert all(picker.pick() is big for _ in range(100))
