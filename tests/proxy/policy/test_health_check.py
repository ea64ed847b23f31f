"""What active health checks make of an endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.health_check import HealthCheck, TcpCheck
from proxy.policy.health_check import Checked


def config(**fields: Any) -> HealthCheck:
    return HealthCheck(
        **{
            "check": TcpCheck(),
            "timeout": 1.0,
            "interval": 10.0,
            "unhealthy_threshold": 2,
            "healthy_threshold": 3,
            **fields,
        }
    )


def run(one: Checked, results: str) -> str:
    """p: passed; f: failed, at once; n: failed, perhaps the network. Gives H or u after each."""
    states = ""
    for result in results:
        before = one.healthy, one.pending
        changed = one.passed() if result == "p" else one.failed(result == "f")
        assert changed == (before != (one.healthy, one.pending))
        states += "H" if one.healthy else "u"
    return states


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("", ""),
        ("p", "H"),  # the first check counts at once
        ("npppp", "uuuHH"),
        ("fppfppp", "uuuuuuH"),
        ("pf", "Hu"),  # the endpoint's own word, too
        ("pnpnpnn", "HHHHHHu"),
        ("pnnpppnp", "HHuuuHHH"),
    ],
)
def test_thresholds(results: str, states: str) -> None:
    assert run(Checked(config()), results) == states


def test_an_endpoint_is_out_and_pending_before_its_first_check() -> None:
    one = Checked(config())
    assert (one.healthy, one.pending) == (False, True)
    one.failed(False)
    assert (one.healthy, one.pending) == (False, False)


@pytest.mark.parametrize(
    ("results", "traffic", "delay"),
    [
        ("p", True, 10.0),
        ("pn", True, 4.0),  # on the edge of unhealthy
        ("pnn", True, 3.0),
        ("pnnp", True, 5.0),  # on the edge of healthy
        ("pnnppp", True, 10.0),
        ("n", True, 3.0),
        ("p", False, 70.0),
        ("n", False, 60.0),
    ],
)
def test_intervals(results: str, traffic: bool, delay: float) -> None:
    times = {"unhealthy_interval": 3.0, "unhealthy_edge_interval": 4.0, "healthy_edge_interval": 5.0}
    one = Checked(config(**times, no_traffic_healthy_interval=70.0))
    run(one, results)
    assert one.delay(traffic, lambda: 0.9) == delay


def test_jitter() -> None:
    one = Checked(config(interval_jitter=2.0, interval_jitter_percent=50))
    one.passed()
    assert one.delay(True, lambda: 0.0) == 10.0
    assert one.delay(True, lambda: 0.5) == 13.5


@given(st.text("pfn", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_a_change_takes_as_many_in_a_row_as_the_thresholds_say(results: str, unhealthy: int, healthy: int) -> None:
    one = Checked(config(unhealthy_threshold=unhealthy, healthy_threshold=healthy))
    states = run(one, results)
    for at in range(1, len(results)):
        if states[at - 1 : at + 1] == "uH":
            assert results[: at + 1].endswith("p" * healthy)
        elif states[at - 1 : at + 1] == "Hu":
            assert results[at] == "f" or (at + 1 >= unhealthy and "p" not in results[at + 1 - unhealthy : at + 1])
