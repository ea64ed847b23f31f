"""Outlier detection, with time and chance as arguments."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.state import ClusterState, Endpoint
from proxy.config.balance import LoadBalancing
from proxy.config.cluster import Cluster, LoadAssignment, OutlierDetection
from proxy.config.cluster import Endpoint as EndpointConfig
from proxy.config.model import Address
from proxy.policy import outlier
from proxy.policy.outlier import Detector, Health
from proxy.telemetry.counters import Counters

ALL = {name: 100 for name in OutlierDetection.__dataclass_fields__ if name.startswith("enforcing")}


class Simulation:
    """A cluster and a virtual clock. Times are seconds since its start."""

    def __init__(self, count: int, draw: Any = lambda: 0.0, **config: Any) -> None:
        detection = OutlierDetection(**{"max_ejection_percent": 100, **config})
        calm = LoadBalancing(healthy_panic_threshold=0.0)  # in panic the ejected serve, too
        config = Cluster("c", "STATIC", "c", outlier_detection=detection, load_balancing=calm)
        self.cluster = ClusterState(config, Counters(), draw)
        self.cluster.assign(
            LoadAssignment("c", tuple(EndpointConfig(Address("127.0.0.1", 1 + i)) for i in range(count)))
        )
        self.hosts = list(self.cluster.endpoints.values())
        self.now = 0.0
        self.swept = detection.interval
        self.verdicts: list[tuple[str, str]] = []

    @property
    def detector(self) -> Detector:
        assert self.cluster.outlier is not None
        return self.cluster.outlier.detector

    def out(self) -> list[int]:
        return [i for i, host in enumerate(self.hosts) if host.health.ejected_until]

    def _found(self, host: Endpoint, kinds: tuple[str, ...]) -> None:
        assert self.cluster.outlier is not None
        for kind in kinds:
            self.verdicts.append((kind, self.cluster.outlier.judge(self.cluster, host, kind, self.now)))

    def answer(self, index: int, *statuses: int) -> None:
        for status in statuses:
            self._found(self.hosts[index], self.detector.answered(self.hosts[index].health, status))

    def fail(self, index: int, times: int = 1) -> None:
        for _ in range(times):
            self._found(self.hosts[index], self.detector.failed(self.hosts[index].health, 503))

    def until(self, now: float) -> None:
        """Let time pass, with a sweep after every interval and returns on time."""
        ejections = self.cluster.outlier
        assert ejections is not None
        while True:
            back = min((host.health.ejected_until for host in ejections.out), default=float("inf"))
            if min(back, self.swept) > now:
                break
            self.now = min(back, self.swept)
            if back <= self.swept:
                ejections.restore(self.cluster, self.now)
            else:
                self.swept += ejections.config.interval
                for host, kind in ejections.sweep(self.cluster):
                    self._found(host, (kind,))
        self.now = now


def test_a_bad_host_goes_and_comes_back_on_time_for_longer_each_time() -> None:
    sim = Simulation(2, interval=1000.0, max_ejection_time=100.0)
    times = []
    for _ in range(5):
        sim.answer(0, *[500] * 5)
        assert sim.out() == [0]
        assert {sim.cluster.picker.pick() for _ in range(4)} == {sim.hosts[1]}
        until = sim.hosts[0].health.ejected_until
        times.append(until - sim.now)
        sim.until(until - 0.001)
        assert sim.out() == [0]
        sim.until(until)
        assert sim.out() == []
        assert {sim.cluster.picker.pick() for _ in range(4)} == set(sim.hosts)
    assert times == [30.0, 60.0, 90.0, 100.0, 100.0]


def test_the_ejection_time_falls_by_a_step_for_each_whole_interval_in_service() -> None:
    sim = Simulation(2, interval=10.0)
    sim.answer(0, *[500] * 5)
    sim.until(30.0)  # back, in the very moment of a sweep
    sim.answer(0, *[500] * 5)
    assert sim.hosts[0].health.ejected_until == 90.0
    sim.until(109.0)  # one sweep at 90 or just behind it, in the interval of the return; one at 100
    assert sim.hosts[0].health.backoff == 1
    sim.until(200.0)
    assert sim.hosts[0].health.backoff == 0
    sim.answer(0, *[500] * 5)
    assert sim.hosts[0].health.ejected_until == 230.0


def test_jitter_comes_on_top_of_the_longest_time() -> None:
    sim = Simulation(2, draw=lambda: 0.5, max_ejection_time=30.0, max_ejection_time_jitter=8.0)
    sim.answer(0, *[503] * 5)
    assert sim.hosts[0].health.ejected_until == 34.0


@pytest.mark.parametrize(
    ("config", "statuses", "found"),
    [
        ({}, [500] * 5, ["consecutive_5xx"]),
        ({}, [500, 502, 503, 504, 501], ["consecutive_5xx"]),
        ({}, [500, 500, 500, 500, 200, 500], []),
        ({}, [500, 500, 500, 500, 404, 500], []),
        ({"consecutive_5xx": 0}, [500] * 50, []),
        ({"consecutive_gateway_failure": 3}, [503, 502, 500, 504, 502], ["consecutive_5xx"]),
        ({"consecutive_gateway_failure": 3}, [500, 503, 502, 504], ["consecutive_gateway_failure"]),
    ],
)
def test_failures_in_a_row(config: dict[str, int], statuses: list[int], found: list[str]) -> None:
    sim = Simulation(2, **ALL, **config)
    sim.answer(0, *statuses)
    assert [kind for kind, verdict in sim.verdicts if verdict == "ejected"] == found


def test_failures_to_connect_count_as_503_unless_they_are_split_off() -> None:
    together, split = Simulation(2, **ALL), Simulation(2, **ALL, split_external_local_origin_errors=True)
    for sim in (together, split):
        sim.answer(0, 503)
        sim.fail(0, 4)
        sim.answer(1, *[503] * 4)
        sim.detector.connected(sim.hosts[1].health)  # a TCP connection: as good as a 200, or no answer at all
        sim.answer(1, 503)
    assert [kind for kind, _ in together.verdicts] == ["consecutive_gateway_failure", "consecutive_5xx"]
    assert together.out() == [0]
    assert [kind for kind, _ in split.verdicts] == ["consecutive_gateway_failure", "consecutive_5xx"]
    assert split.out() == [1]
    split.answer(0, 500)  # whatever it is: an answer came
    split.fail(0, 4)
    assert split.out() == [1]
    split.until(30.0)
    split.fail(0)
    assert split.verdicts[-1] == ("consecutive_local_origin_failure", "ejected")


def test_what_is_not_enforced_is_only_counted_and_begins_anew() -> None:
    sim = Simulation(2, enforcing_consecutive_5xx=0)
    sim.answer(0, *[500] * 11)
    assert sim.verdicts == [("consecutive_5xx", "not enforced")] * 2


def test_a_percentage_is_drawn() -> None:
    rng = random.Random(5)
    detector = Detector(OutlierDetection(enforcing_success_rate=30))
    enforced = sum(detector.enforces(outlier.SUCCESS_RATE, rng.random) for _ in range(10_000))
    assert 2850 < enforced < 3150


def test_the_success_rate_is_compared_with_that_of_the_others() -> None:
    sim = Simulation(10, consecutive_5xx=0, success_rate_stdev_factor=1900)
    for index in range(10):
        good = 60 if index == 3 else 99 - index % 2
        sim.answer(index, *[200] * good, *[500] * (100 - good))
    sim.until(9.9)
    assert sim.verdicts == []
    sim.until(10.0)
    assert sim.verdicts == [("success_rate", "ejected")]
    assert sim.out() == [3]
    # What was counted before the sweep does not count again.
    sim.until(20.0)
    assert len(sim.verdicts) == 1


def test_the_threshold_of_the_success_rate() -> None:
    # Envoy's own example: mean 80, standard deviation 20.
    assert outlier.least_success_rate([100, 60, 100, 60], 1.9) == pytest.approx(42.0)


@pytest.mark.parametrize(("hosts", "requests", "strikes"), [(5, 100, True), (4, 100, False), (5, 99, False)], ids=str)
def test_rates_need_hosts_and_requests(hosts: int, requests: int, strikes: bool) -> None:
    sim = Simulation(
        hosts, **ALL, consecutive_5xx=0, success_rate_stdev_factor=1000, failure_percentage_request_volume=1000
    )
    for index in range(hosts):
        sim.answer(index, *[500 if index == 0 else 200] * requests)
    sim.until(10.0)
    assert [kind for kind, _ in sim.verdicts if kind == "success_rate"] == ["success_rate"] * strikes


@pytest.mark.parametrize(("failures", "strikes"), [(85, True), (84, False)])
def test_the_failure_percentage_is_compared_with_nothing(failures: int, strikes: bool) -> None:
    config = {"consecutive_gateway_failure": 0, "consecutive_5xx": 0, "enforcing_success_rate": 0}
    sim = Simulation(6, **{**ALL, **config}, failure_percentage_minimum_hosts=6)
    for index in range(6):
        sim.answer(index, *[500] * failures, *[200] * (100 - failures))
    sim.until(10.0)
    # All are as bad, and one is left.
    assert sim.out() == ([0, 1, 2, 3, 4] if strikes else [])
    assert sim.verdicts == ([("failure_percentage", "ejected")] * 5 + [("failure_percentage", "overflow")]) * strikes


def test_rates_of_connections() -> None:
    config = {"consecutive_local_origin_failure": 0, "split_external_local_origin_errors": True}
    sim = Simulation(6, **ALL, **config, failure_percentage_threshold=50)
    for index in range(6):
        sim.answer(index, *[200] * 100)
    sim.fail(2, 100)
    sim.until(10.0)
    kinds = [("local_origin_success_rate", "ejected"), ("local_origin_failure_percentage", "gone")]
    assert sim.verdicts == kinds
    assert sim.out() == [2]


@pytest.mark.parametrize(
    ("hosts", "percent", "always", "most"),
    [(10, 10, False, 1), (10, 19, False, 1), (9, 10, False, 0), (9, 10, True, 1), (2, 0, True, 1), (2, 100, False, 1),
     (1, 100, True, 0), (4, 75, False, 3), (4, 100, False, 3)],
)  # fmt: skip
def test_how_many_may_be_out(hosts: int, percent: int, always: bool, most: int) -> None:
    sim = Simulation(hosts, max_ejection_percent=percent, always_eject_one_host=always)
    for index in range(hosts):
        sim.answer(index, *[500] * 5)
    assert len(sim.out()) == most


def test_the_last_one_that_is_healthy_stays() -> None:
    sim = Simulation(3)
    sim.hosts[1].healthy = sim.hosts[2].healthy = False
    sim.answer(0, *[500] * 5)
    assert sim.out() == []
    sim.answer(1, *[500] * 5)  # which is out of service anyway
    assert sim.out() == [1]


def test_a_passed_health_check_brings_back() -> None:
    sim = Simulation(3)
    sim.answer(0, *[500] * 5)
    assert sim.cluster.outlier is not None
    assert sim.cluster.outlier.readmit(sim.cluster, sim.hosts[0])
    assert not sim.cluster.outlier.readmit(sim.cluster, sim.hosts[1])
    assert sim.out() == []


def test_updates_keep_who_is_out_and_no_detection_means_nobody_is() -> None:
    sim = Simulation(3)
    sim.answer(0, *[500] * 5)
    config = Cluster("c", "STATIC", "c", outlier_detection=OutlierDetection(max_ejection_percent=99))
    sim.cluster.configure(config)
    assert sim.out() == [0]
    left = tuple(EndpointConfig(host.address) for host in sim.hosts[1:])
    sim.cluster.assign(LoadAssignment("c", left))
    assert sim.cluster.ejected() == 0
    sim.answer(1, *[500] * 5)
    assert sim.cluster.ejected() == 1
    sim.cluster.configure(Cluster("c", "STATIC", "c"))
    assert sim.cluster.ejected() == 0
    assert {sim.cluster.picker.pick() for _ in range(4)} == set(sim.hosts[1:])


@given(
    st.integers(1, 12),
    st.fixed_dictionaries(
        {
            "max_ejection_percent": st.integers(0, 100),
            "always_eject_one_host": st.booleans(),
            "split_external_local_origin_errors": st.booleans(),
            "success_rate_request_volume": st.just(5),
            "success_rate_minimum_hosts": st.just(2),
            "failure_percentage_request_volume": st.just(5),
            "failure_percentage_minimum_hosts": st.just(2),
            "max_ejection_time_jitter": st.sampled_from([0.0, 5.0]),
            "enforcing_consecutive_5xx": st.sampled_from([50, 100]),
            "enforcing_failure_percentage": st.sampled_from([0, 50, 100]),
        }
    ),
    st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(["good", "bad", "gone", "later"]), st.integers(1, 9)),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_bounds_hold_whatever_happens(
    count: int, config: dict[str, Any], events: list[tuple[int, str, int]], rng: random.Random
) -> None:
    sim = Simulation(count, rng.random, **config)
    percent = config["max_ejection_percent"]
    for index, what, times in events:
        if what == "later":
            sim.until(sim.now + 7 * times)
        elif what == "gone":
            sim.fail(index % count, times)
        else:
            sim.answer(index % count, *[200 if what == "good" else 503] * times)
        out = sim.out()
        assert len(out) <= max(count * percent // 100, 1 if config["always_eject_one_host"] else 0)
        assert len(out) < count
        assert sim.cluster.ejected() == len(out)
        assert sim.cluster.picker.pick() in [host for i, host in enumerate(sim.hosts) if i not in out]
        for host in sim.hosts:
            until = host.health.ejected_until
            assert until == 0 or sim.now < until <= sim.now + 305
    sim.until(sim.now + 305)
    assert sim.out() == []
    sim.until(sim.now + 200)
    assert [host.health.backoff for host in sim.hosts] == [0] * count


def test_a_detector_that_does_not_strike_gives_nothing_new() -> None:
    detector, health = Detector(OutlierDetection()), Health()
    assert detector.answered(health, 200) is detector.answered(health, 500)
