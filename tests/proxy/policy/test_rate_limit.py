"""Token buckets over a clock of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.rate_limit import BucketTable, TokenBucket, admit, tightest

EPSILON = 1e-6


@given(
    st.integers(1, 50),
    st.floats(0.01, 1000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30)), min_size=1, max_size=60),
)
def test_never_more_than_burst_and_rate_in_any_window(
    burst: int, rate: float, arrivals: list[tuple[float, int]]
) -> None:
    now, admitted = 100.0, []
    bucket = TokenBucket(burst, rate, now)
    for pause, count in arrivals:
        now += pause
        admitted += [now for _ in range(count) if admit([bucket], now)]
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + rate * (admitted[last] - start) + EPSILON


@given(st.integers(1, 20), st.floats(0.1, 100), st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_what_it_says_of_the_wait_is_so(burst: int, rate: float, pauses: list[float]) -> None:
    now = 0.0
    bucket = TokenBucket(burst, rate, now)
    for pause in pauses:
        now += pause
        wait = bucket.wait(now)
        assert admit([bucket], now) is (wait == 0)
        if wait:
            assert bucket.tokens(now + wait) >= 1 - EPSILON
            assert wait <= 1 / rate + 1
            now += wait


def test_all_the_burst_at_once_and_then_the_rate() -> None:
    bucket = TokenBucket(3, 2.0, 10.0)
    assert [admit([bucket], 10.0) for _ in range(4)] == [True, True, True, False]
    assert not admit([bucket], 10.4)
    assert admit([bucket], 10.5)
    assert bucket.tokens(1000.0) == 3
    assert bucket.tokens(900.0) == 3  # a clock that goes back takes nothing


def test_who_is_refused_by_one_bucket_takes_of_none() -> None:
    large, small = TokenBucket(5, 1.0, 0.0), TokenBucket(1, 1.0, 0.0)
    assert admit([large, small], 0.0)
    assert not admit([large, small], 0.0)
    assert large.tokens(0.0) == 4
    assert tightest([large, small], 0.0) is small
    assert admit([], 0.0)


def test_a_table_is_bounded_and_forgets_who_was_longest_silent() -> None:
    table = BucketTable(1, 0.001, 2)
    first = table.get("a", 0.0)
    assert admit([first], 0.0)
    table.get("b", 0.0)
    assert table.get("a", 1.0) is first
    table.get("c", 1.0)
    assert len(table) == 2
    assert table.get("a", 1.0) is first
    table.get("b", 1.0)
    table.get("c", 1.0)
    assert table.get("a", 1.0) is not first
