"""No proxy at all: latency from generator to upstream, and how much load there can be. The floor under the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.load import Load
from bench.plan import Plan, Run
from bench.result import DIRECT, Scenario, Subject
from bench.scenarios.http import RATE


@dataclass(frozen=True, slots=True)
class Direct:
    """See the module."""

    name: str
    title: str
    load: Callable[[Path], Load]

    def steps(self, plan: Plan, _proxies: int) -> int:
        return 2 * plan.pairs

    def run(self, run: Run) -> Scenario:
        load = self.load(run.stage.directory)
        scenario = Scenario(self.name, self.title, f"{RATE} requests/s open loop, then saturation; {load.about()}")
        subject = Subject(DIRECT, "direct", 0)
        scenario.subjects.append(subject)
        port = run.stage.upstream("http")
        seconds = run.plan.seconds

        def latency(_: Subject) -> None:
            found = load.latency(port, RATE, run.plan.latency_seconds)
            subject.add("p50", found.p50)
            subject.add("p99", found.p99)

        def saturate(_: Subject) -> None:
            subject.add("rate_saturated", load.saturate(port, seconds) / max(1, round(seconds)))

        for what, measure in (("latency", latency), ("saturation", saturate)):
            run.turns(scenario, what, [subject], measure, lambda one: one.title)
        if not scenario.subjects:
            raise BenchError(f"{self.name}: requests fail without any proxy: {run.failures[-1]}")
        return scenario
