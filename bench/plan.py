"""How much is measured, and what a scenario is given to measure with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bench.errors import BenchError, ProxyFailed
from bench.proxies import KINDS, Kind
from bench.result import CONTROL, PILLION, Scenario, Subject
from bench.shapes import Shape
from bench.stage import Deployed, Scene, Stage

INTERPRETED = "the compiled form of Pillion: not there, or not of this source; python -m proxy.compiled makes it"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """`pairs`: turns that each proxy has in each measurement. `seconds`: of each window. `quick`: Pillion and Envoy
    only.
    """

    pairs: int = 7
    seconds: float = 3.0
    quick: bool = False

    @property
    def latency_seconds(self) -> float:
        """Of a latency window: a p99 wants a thousand requests; in a quick run it is a guess."""
        return 2.5 * self.seconds if self.quick else max(2.0, self.seconds)

    @property
    def warm_up(self) -> float:
        """Seconds of load before the first window of each proxy."""
        return self.seconds if self.quick else 2.0

    @property
    def idle(self) -> float:
        """Seconds without load in which what a proxy does by itself is read."""
        return 1.0 if self.quick else 3.0

    def control(self, scenario: str) -> bool:
        """Whether Pillion is measured a second time in this scenario."""
        return not self.quick or scenario == "h1-hop"

    def kinds(self) -> list[Kind]:
        """Which proxies are wanted; whether they are installed is another matter."""
        return [kind for kind in KINDS if not self.quick or kind.name in ("pillion", "envoy")]


@dataclass(slots=True)
class Run:
    """One run's surroundings. `step(text)` is told before each window what it is; `failures` and `skipped` collect
    sentences.
    """

    plan: Plan
    stage: Stage
    step: Callable[[str], None]
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def deploy(self, scene: Scene, scenario: Scenario, shape: Shape, control: bool = True) -> list[Contender]:
        """Start every proxy that there is, Pillion a second time as the control; those that fail are reported."""
        found = []
        wanted = [(kind, kind.name, kind.title) for kind in self.plan.kinds()]
        if control and self.plan.control(scenario.name):
            wanted += [(kind, CONTROL, f"{kind.title} again") for kind, name, _ in wanted if name == PILLION]
        for kind, name, title in wanted:
            reason = kind.missing(shape.role)
            if reason is not None:
                if reason not in self.skipped:
                    self.skipped.append(reason)
                continue
            self.step(f"{scenario.name}: {title} starts")
            try:
                deployed = scene.deploy(kind, shape, name, title)
            except BenchError as error:
                self.fail(scenario, title, error)
                continue
            subject = Subject(name, title, len(deployed.running))
            scenario.subjects.append(subject)
            found.append(Contender(subject, deployed))
        return found

    def inspect(self, scenario: Scenario, contenders: list[Contender]) -> None:
        """Note what each has loaded, once it has been at work; one that is not what it should be is out."""
        for contender in tuple(contenders):
            try:
                contender.subject.loaded = contender.deployed.loaded()
                self._check_form(scenario, contender.subject)
            except BenchError as error:
                self.fail(scenario, contender.subject.title, error)
                contenders.remove(contender)

    def end(self, scene: Scene, scenario: Scenario, contenders: list[Contender]) -> None:
        """End the proxies and read their access logs; one that has logged nothing is out."""
        scene.end()
        for contender in contenders:
            try:
                contender.deployed.check_logs()
            except BenchError as error:
                self.fail(scenario, contender.subject.title, error)

    def _check_form(self, scenario: Scenario, subject: Subject) -> None:
        """Say when Pillion runs interpreted. Raises ProxyFailed when the control is not of the same form."""
        if subject.loaded.get("compiled") == "no" and INTERPRETED not in self.skipped:
            self.skipped.append(INTERPRETED)
        first = scenario.subject(PILLION)
        if subject.name == CONTROL and first is not None and first.loaded != subject.loaded:
            raise ProxyFailed("is not what was started first: the source has changed meanwhile")

    def fail(self, scenario: Scenario, title: str, error: BenchError) -> None:
        """A proxy is out of this scenario: its figures are not shown, and the run ends with a failure."""
        self.failures.append(f"{scenario.name}: {title}: {error}")
        scenario.subjects = [subject for subject in scenario.subjects if subject.title != title]

    def turns(
        self,
        scenario: Scenario,
        what: str,
        contenders: list[_T],
        measure: Callable[[_T], None],
        title: Callable[[_T], str],
    ) -> None:
        """`measure` each contender once a turn: A B C, C B A, and so on; one that fails is taken out of the list."""
        for turn in range(self.plan.pairs):
            for contender in alternating(tuple(contenders), turn):
                self.step(f"{scenario.name}: {what}, turn {turn + 1} of {self.plan.pairs}, {title(contender)}")
                try:
                    measure(contender)
                except BenchError as error:
                    self.fail(scenario, title(contender), error)
                    contenders.remove(contender)


@dataclass(slots=True, eq=False)
class Contender:
    """A proxy at work and where its figures go."""

    subject: Subject
    deployed: Deployed


def alternating(items: Sequence[_T], turn: int) -> Iterator[_T]:
    """Forwards in even turns, backwards in odd ones: what drifts over time meets each of a pair equally."""
    return iter(items) if turn % 2 == 0 else reversed(items)
