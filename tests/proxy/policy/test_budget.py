"""The retry budget: a share of the requests and a floor, whatever happens."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.budget import FLOOR, PRICE, Budget

_SAVED = 2 * FLOOR * 10


def test_a_quiet_cluster_has_the_floor() -> None:
    budget = Budget(100.0)
    granted = sum(budget.withdraw(100.0) for _ in range(100))
    assert granted == FLOOR * 10
    assert not budget.withdraw(100.2)
    assert sum(budget.withdraw(101.3) for _ in range(10)) == 3


def test_requests_earn_retries() -> None:
    budget = Budget(0.0)
    while budget.withdraw(0.0):
        pass
    for _ in range(50):
        budget.deposit()
    assert sum(budget.withdraw(0.0) for _ in range(50)) == 50 / PRICE


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_it_is_never_exceeded(steps: list[tuple[float, int, int]]) -> None:
    """In every stretch of time, not only from the beginning."""
    now, budget = 0.0, Budget(0.0)
    history = []
    for seconds, requests, tries in steps:
        now += seconds
        for _ in range(requests):
            budget.deposit()
        granted = sum(budget.withdraw(now) for _ in range(tries))
        history.append((now, requests, granted))
    for first in range(len(history)):
        requests = granted = 0
        for now, more, taken in history[first:]:
            requests += more
            granted += taken
            assert granted <= requests / PRICE + FLOOR * (now - history[first][0]) + _SAVED + 1e-6
