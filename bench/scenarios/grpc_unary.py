"""gRPC through sidecars, HTTP/2 on every leg: CPU per unary call at saturation, and added latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench import kernel, tools
from bench.errors import BenchError, NotInstalled
from bench.load import WARM, attempts
from bench.machine import H2LOAD, K6, Tool
from bench.plan import Contender, Plan, Run
from bench.result import Scenario
from bench.scenarios import http
from bench.scenarios.latency import measure_added
from bench.shapes import Shape
from bench.tools import Calls
from bench.upstream import CALL, FRAMED

RATE: Final = 300
"""Calls per second of the latency windows."""

CONNECTIONS: Final = 50
"""Of the latency windows; they take turns."""


@dataclass(frozen=True, slots=True)
class Unary:
    """Unary calls of 100 bytes as fast as they are answered."""

    name: str
    title: str
    shape: Shape

    def steps(self, plan: Plan, proxies: int) -> int:
        return (proxies + plan.control(self.name)) * (2 + plan.pairs)

    def run(self, run: Run) -> Scenario:
        program = _needed(H2LOAD)
        message = run.stage.directory / "message"
        message.write_bytes(FRAMED)
        calls = Calls(CALL, message, len(FRAMED))
        about = (
            f"messages of {len(FRAMED)} bytes both ways, {calls.connections} connections with {calls.streams} streams "
            "each, closed loop; load by h2load, answers by nghttpd"
        )
        scenario = Scenario(self.name, self.title, about)

        def measure(contender: Contender) -> None:
            deployed = contender.deployed
            before = deployed.cpu()
            count = tools.h2load(program, deployed.port, calls, run.plan.seconds)
            used = deployed.cpu() - before
            deployed.check()
            deployed.trim()
            contender.subject.add("cpu_saturated", used / count / contender.subject.sidecars)

        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, self.shape)
            for contender in tuple(contenders):
                run.step(f"{self.name}: {contender.subject.title} warms up")
                try:
                    tools.h2load(program, contender.deployed.port, calls, run.plan.warm_up)
                except BenchError as error:
                    run.fail(scenario, contender.subject.title, error)
                    contenders.remove(contender)
            run.turns(scenario, "CPU at saturation", contenders, measure, lambda one: one.subject.title)
            for contender in contenders:
                for pid in contender.deployed.pids:
                    contender.subject.add("memory_loaded", kernel.memory(pid).alone)
            run.inspect(scenario, contenders)
            run.end(scene, scenario, contenders)
        return scenario


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What sidecars add to unary calls that are sent when they are due."""

    name: str
    title: str
    shape: Shape

    def steps(self, plan: Plan, proxies: int) -> int:
        contenders = proxies + plan.control(self.name)
        return contenders + plan.pairs * (1 + contenders)

    def run(self, run: Run) -> Scenario:
        program = _needed(K6)
        seconds = run.plan.latency_seconds * http.RATE / RATE  # for as many calls as the others have requests
        about = (
            f"unary calls of 100 bytes, {RATE} a second on {CONNECTIONS} connections, open loop; "
            "calls by k6 (constant arrival rate, grpc-go), answers by grpcio"
        )
        scenario = Scenario(self.name, self.title, about)
        upstream = run.stage.upstream("grpc")
        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, self.shape)
            measure_added(
                run,
                scenario,
                contenders,
                upstream,
                lambda port: attempts(
                    lambda: tools.k6_grpc(program, port, CONNECTIONS, RATE, WARM, seconds, run.stage.directory)
                ),
            )
            run.inspect(scenario, contenders)
            run.end(scene, scenario, contenders)
        return scenario


def _needed(tool: Tool) -> str:
    path = tool.path()
    if path is None:
        raise NotInstalled(tool.missing())
    return path
