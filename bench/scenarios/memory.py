"""What an idle sidecar weighs: PSS of all its processes, after it has served and then had nothing to do."""

from __future__ import annotations

import time
from typing import Final

from bench import kernel
from bench.errors import BenchError
from bench.generator import Generator
from bench.plan import Plan, Run
from bench.result import Scenario
from bench.shapes import hop

SERVED: Final = 1.0
"""Seconds of load before memory is read."""


class Idle:
    """One plaintext hop with this many clusters, each with a virtual host of its own."""

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self.name = f"idle-memory-{clusters}"
        self.title = f"memory of an idle sidecar, {clusters:,} clusters"

    def steps(self, _plan: Plan, proxies: int) -> int:
        return proxies

    def run(self, run: Run) -> Scenario:
        about = f"{SERVED:g} s of requests, then {run.plan.idle:g} s of nothing; agent and worker together"
        scenario = Scenario(self.name, self.title, about)
        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, hop(clusters=self.clusters), control=False)
            for contender in tuple(contenders):
                try:
                    with Generator(contender.deployed.port) as generator:
                        generator.run(SERVED, 500)
                except BenchError as error:
                    run.fail(scenario, contender.subject.title, error)
                    contenders.remove(contender)
            time.sleep(run.plan.idle)
            run.inspect(scenario, contenders)
            for contender in contenders:
                memory = kernel.memory(contender.deployed.pids[0])
                contender.subject.add("pss", memory.pss)
                contender.subject.add("memory_alone", memory.alone)
        return scenario
