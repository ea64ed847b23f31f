"""What every scenario is."""

from __future__ import annotations

from typing import Protocol

from bench.plan import Plan, Run
from bench.result import Scenario


class Definition(Protocol):
    """A scenario that can be run."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def title(self) -> str: ...
    def steps(self, plan: Plan, proxies: int) -> int:
        """How often run() will call step(), with this many proxies (not counting Pillion's second turn)."""

    def run(self, run: Run) -> Scenario:
        """Measure. What fails is in run.failures. Raises BenchError when nothing can be measured at all."""
