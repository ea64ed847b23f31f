"""What a run found, as it is written to result.json: values turn by turn, so that anyone can compute anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import maths
from bench.bars import BARS
from bench.errors import BenchError
from bench.figures import FIGURES

VERSION = 1
DIRECT, PILLION, ENVOY, HAPROXY = "direct", "pillion", "envoy", "haproxy"
CONTROL = "pillion-again"
"""Pillion measured a second time, in processes of its own: whatever it differs by is noise."""


@dataclass(slots=True)
class Subject:
    """One proxy's figures in a scenario, in SI units (seconds, bytes), one value a turn.

    `loaded`: what was found in its process (event loop, TLS engine, versions). `sidecars`: how many there are between
    client and server; CPU and memory are per sidecar.
    """

    name: str
    title: str
    sidecars: int = 1
    figures: dict[str, list[float]] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)

    def add(self, figure: str, value: float) -> None:
        """One more turn."""
        self.figures.setdefault(figure, []).append(value)


@dataclass(slots=True)
class Scenario:
    """`about` says how it was measured. `notes` are for the reader of the table."""

    name: str
    title: str
    about: str
    subjects: list[Subject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def subject(self, name: str) -> Subject | None:
        """By name."""
        return next((subject for subject in self.subjects if subject.name == name), None)

    def ratio(self, figure: str, name: str, to: str) -> maths.Summary | None:
        """One subject's figure over another's: the median and range over the turns (see Figure.differences)."""
        ours, theirs = self.subject(name), self.subject(to)
        if ours is None or theirs is None:
            return None
        mine, other = ours.figures.get(figure, []), theirs.figures.get(figure, [])
        if not mine or len(mine) != len(other):
            return None
        if FIGURES[figure].differences:
            below = maths.summary(other).median
            if below <= 0:
                return None
            value = maths.summary(mine).median / below
            if value <= 0:  # both are noise
                return None
            return maths.Summary(value, value, value)
        if min(other) <= 0:
            return None
        return maths.summary(maths.ratios(mine, other))


@dataclass(slots=True)
class Result:
    """A whole run. `facts` is machine.Facts; `skipped` and `failures` are sentences."""

    facts: dict[str, Any]
    options: dict[str, Any]
    scenarios: list[Scenario] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    version: int = VERSION

    def scenario(self, name: str) -> Scenario | None:
        """By name."""
        return next((scenario for scenario in self.scenarios if scenario.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """Plain values; each figure also as median, low and high, and what a scenario's figures are to reach."""
        plain = asdict(self)
        for scenario in plain["scenarios"]:
            scenario["bars"] = {figure: bar for (name, figure), bar in BARS.items() if name == scenario["name"]}
            for subject in scenario["subjects"]:
                subject["summary"] = {name: asdict(maths.summary(v)) for name, v in subject["figures"].items()}
        return plain


def load(path: Path) -> Result:
    """A result.json. Raises BenchError when it is none."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise BenchError(f"{path} is not JSON") from None
    if not isinstance(plain, Mapping) or plain.get("version") != VERSION or "scenarios" not in plain:
        raise BenchError(f"{path} is not a result of this version of pillion bench")
    scenarios = [
        Scenario(
            item["name"],
            item["title"],
            item["about"],
            [
                Subject(one["name"], one["title"], one["sidecars"], one["figures"], one["loaded"])
                for one in item["subjects"]
            ],
            item["notes"],
        )
        for item in plain["scenarios"]
    ]
    return Result(plain["facts"], plain["options"], scenarios, plain["skipped"], plain["failures"])
