"""What sidecars add to latency: the figure through them minus that of the same turn without any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.errors import BenchError
from bench.plan import Contender, Run
from bench.result import CONTROL, DIRECT, Scenario, Subject
from bench.tools import Latency


@dataclass(frozen=True, slots=True)
class _Target:
    """What latency is measured of: a proxy, or the upstream itself."""

    subject: Subject
    port: int


def measure_added(
    run: Run, scenario: Scenario, contenders: list[Contender], upstream: int, window: Callable[[int], Latency]
) -> None:
    """`window` (given a port) in turns, the upstream's among them. `contenders` loses those that fail.

    Raises BenchError when not even the upstream answers.
    """
    direct = Subject(DIRECT, "direct", 0)
    scenario.subjects.insert(0, direct)
    targets = [_Target(direct, upstream)]
    targets += [
        _Target(one.subject, one.deployed.port)
        for one in contenders
        if not (run.plan.quick and one.subject.name == CONTROL)
    ]

    def measure(target: _Target) -> None:
        found = window(target.port)
        target.subject.add("p50", found.p50)
        target.subject.add("p99", found.p99)

    run.turns(scenario, "latency", targets, measure, lambda one: one.subject.title)
    if direct not in scenario.subjects:
        raise BenchError(f"{scenario.name}: not even the upstream alone answers: {run.failures[-1]}")
    contenders[:] = [one for one in contenders if one.subject in scenario.subjects]
    for contender in contenders:
        for name in ("p50", "p99"):
            for mine, without in zip(contender.subject.figures.get(name, ()), direct.figures[name], strict=False):
                contender.subject.add(f"added_{name}", mine - without)
