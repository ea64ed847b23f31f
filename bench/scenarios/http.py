"""Requests through sidecars: CPU per request at fixed rates and at saturation, added latency, memory under load."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import kernel, maths
from bench.errors import BenchError
from bench.load import Load
from bench.plan import Contender, Plan, Run
from bench.result import Scenario
from bench.scenarios.latency import measure_added
from bench.shapes import Shape

RATE: Final = 500
"""Requests per second of the latency windows."""

SETTLE: Final = 0.2
"""Seconds of load at each rate before its window."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """A scenario of HTTP requests through `shape`."""

    name: str
    title: str
    shape: Shape
    load: Callable[[Path], Load]

    def steps(self, plan: Plan, proxies: int) -> int:
        contenders = proxies + plan.control(self.name)
        latency = 1 + (proxies if plan.quick else contenders)
        return 1 + 2 * contenders + plan.pairs * (2 * contenders + latency)

    def run(self, run: Run) -> Scenario:
        load = self.load(run.stage.directory)
        rates = " and ".join(map(str, load.rates))
        about = f"1 KiB answers; CPU at {rates} requests/s; latency at {RATE} requests/s, open loop; {load.about()}"
        scenario = Scenario(self.name, self.title, about)
        upstream = run.stage.upstream("http")
        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, self.shape)
            _Windows(run, scenario, load, contenders).measure(upstream)
            run.inspect(scenario, contenders)
            run.end(scene, scenario, contenders)
        return scenario


@dataclass(frozen=True, slots=True)
class _Windows:
    """The measurements of one scenario. `contenders` loses those that fail."""

    run: Run
    scenario: Scenario
    load: Load
    contenders: list[Contender]

    def measure(self, upstream: int) -> None:
        """All of it. Raises BenchError when not even the upstream answers."""
        run, plan, contenders = self.run, self.run.plan, self.contenders
        for contender in tuple(contenders):
            run.step(f"{self.scenario.name}: {contender.subject.title} warms up")
            try:
                with self.load.fixed(contender.deployed.port) as connections:
                    connections.run(plan.warm_up)
            except BenchError as error:
                run.fail(self.scenario, contender.subject.title, error)
                contenders.remove(contender)
        run.step(f"{self.scenario.name}: idle")
        idle_from = [contender.deployed.cpu() for contender in contenders]
        time.sleep(plan.idle)
        for contender, at_first in zip(contenders, idle_from, strict=True):
            idle = (contender.deployed.cpu() - at_first) / plan.idle
            contender.subject.add("cpu_idle", idle / contender.subject.sidecars)
        run.turns(self.scenario, "CPU at fixed rates", contenders, self._fixed, _title)
        run.turns(self.scenario, "CPU at saturation", contenders, self._saturate, _title)
        measure_added(
            run, self.scenario, contenders, upstream, lambda port: self.load.latency(port, RATE, plan.latency_seconds)
        )
        for contender in contenders:
            for pid in contender.deployed.pids:  # not PSS: the control shares its pages
                contender.subject.add("memory_loaded", kernel.memory(pid).alone)

    def _fixed(self, contender: Contender) -> None:
        """CPU per request as the slope between rates, so that what the proxy does on its own is not in it."""
        deployed, points = contender.deployed, []
        with self.load.fixed(deployed.port) as connections:
            for rate in self.load.rates:
                connections.run(SETTLE, rate)
                before = deployed.cpu()
                window = connections.run(self.run.plan.seconds, rate)
                points.append((window.requests / window.seconds, (deployed.cpu() - before) / window.seconds))
        deployed.check()
        deployed.trim()
        sidecars = contender.subject.sidecars
        contender.subject.add("cpu", maths.slope(points)[0] / sidecars)
        for name, (reached, used) in (("cpu_low", points[0]), ("cpu_high", points[-1])):
            contender.subject.add(name, used / reached / sidecars)

    def _saturate(self, contender: Contender) -> None:
        deployed = contender.deployed
        before = deployed.cpu()
        requests = self.load.saturate(deployed.port, self.run.plan.seconds)
        used = deployed.cpu() - before
        deployed.check()
        deployed.trim()
        contender.subject.add("cpu_saturated", used / requests / contender.subject.sidecars)


def _title(contender: Contender) -> str:
    return contender.subject.title
