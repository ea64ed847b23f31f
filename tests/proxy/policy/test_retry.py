"""Which requests are sent again, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.route import RetryPolicy
from proxy.policy import retry


def _on(*conditions: str, **more: object) -> RetryPolicy:
    return RetryPolicy(frozenset(conditions), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [
        ("5xx", set(range(500, 600))),
        ("gateway-error", {502, 503, 504}),
        ("retriable-4xx", {409}),
        ("retriable-status-codes", {418, 503}),
        ("connect-failure", set()),
        ("reset", set()),
    ],
)
def test_statuses(condition: str, statuses: set[int]) -> None:
    policy = _on(condition, retriable_status_codes=frozenset((418, 503)))
    assert {
        status for status in range(200, 600) if retry.on_status(policy.retry_on, policy.retriable_status_codes, status)
    } == statuses


def test_retriable_status_codes_need_their_condition() -> None:
    assert not retry.on_status(frozenset(("reset",)), frozenset((503,)), 503)


@pytest.mark.parametrize(
    ("condition", "unsent", "no_answer", "try_timeout"),
    [
        ("connect-failure", True, False, False),
        ("refused-stream", True, False, False),
        ("reset-before-request", True, False, False),
        ("reset", True, True, True),
        ("5xx", True, True, True),
        ("gateway-error", False, False, True),
        ("unavailable", False, False, False),
    ],
)
def test_failures(condition: str, unsent: bool, no_answer: bool, try_timeout: bool) -> None:
    allowed = frozenset((condition,))
    assert retry.on_unsent(allowed) == unsent
    assert retry.on_no_answer(allowed) == no_answer
    assert retry.on_try_timeout(allowed) == try_timeout


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("cancelled", b"1"),
        ("deadline-exceeded", b"4"),
        ("resource-exhausted", b"8"),
        ("internal", b"13"),
        ("unavailable", b"14"),
    ],
)
def test_grpc_statuses(condition: str, status: bytes) -> None:
    for code in range(17):
        assert retry.on_grpc_status(frozenset((condition,)), b"%d" % code) == (b"%d" % code == status)


@pytest.mark.parametrize(
    ("method", "key", "safe"),
    [
        (b"GET", None, True),
        (b"DELETE", None, True),
        (b"POST", None, False),
        (b"PATCH", None, False),
        (b"get", None, False),
        (b"POST", b"8e03978e", True),
    ],
)
def test_more_is_repeated_where_that_is_safe(method: bytes, key: bytes | None, safe: bool) -> None:
    policy = _on("connect-failure", safe_on=frozenset(("reset",)))
    assert retry.conditions(policy, method, key) == ({"connect-failure", "reset"} if safe else {"connect-failure"})
    assert retry.conditions(_on("reset"), method, key) == {"reset"}


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_back_off_is_jittered_and_bounded(number: int, draw: float) -> None:
    policy = _on("reset")
    wait = retry.back_off(policy, number, draw)
    assert 0 <= wait <= 0.25
    assert wait <= 0.025 * 2.0 ** min(number - 1, 30)


def test_back_off_doubles() -> None:
    policy = _on("reset", base_interval=0.1, max_interval=1.0)
    assert [retry.back_off(policy, number, 0.5) for number in range(1, 7)] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


def test_what_the_upstream_asks_for() -> None:
    assert retry.pushback(b"1500") == 1.5
    assert retry.pushback(b"-1") is None
    assert retry.pushback(b"soon") is None
    assert retry.retry_after(b"2") == 2.0
    assert retry.retry_after(b"Fri, 31 Dec 1999 23:59:59 GMT") is None
