"""How far the run is, on stderr: a bar where there is a terminal, lines elsewhere. It draws only between windows: a
thread that redraws would run beside the load.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Steps:
    """Use as a context manager around the run; step() before each window."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, -1
        self._began = time.monotonic()
        self._said = ""
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Steps:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, text: str) -> None:
        """The next window begins: `text` says what it is, its scenario before the first colon."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=min(self._done, self._total), description=text, refresh=True)
            return
        stage = text.split(", turn ")[0]
        if stage != self._said:  # a line for each measurement, not for each of its turns
            self._said = stage
            print(f"{time.monotonic() - self._began:5.0f} s  {stage}", file=sys.stderr, flush=True)
