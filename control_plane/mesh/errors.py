"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to correct. `line` and `column` count from 1, in characters."""

    source: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.source}:{self.line}:{self.column}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


class ConfigError(ValueError):
    """The configuration cannot be used. `problems`: one to MAX_PROBLEMS, sorted by place."""

    MAX_PROBLEMS = 50

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))[: self.MAX_PROBLEMS]
        super().__init__("\n".join(map(str, self.problems)))
