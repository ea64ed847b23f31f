"""`pillion bench`: run the scenarios, write what was found, say it.

Exit status: 0 when every proxy did everything, 1 when one failed or requests did, 2 when it was asked for something
that there is not, 130 after Ctrl-C. In any case nothing that it started is left, and none of its temporary files.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import machine, report, svg
from bench.errors import BenchError, NotInstalled
from bench.plan import Plan, Run
from bench.progress import Steps
from bench.result import Result
from bench.scenarios import SCENARIOS
from bench.stage import Stage

NOT_QUICK = ("direct", "grpc-stream-pair")
"""What a quick run leaves out unless it is named: each is nearly told by another."""

BUSY = 0.4
"""Load average per CPU above which others' work shows in the figures."""


def run(names: Sequence[str], plan: Plan, output: Path, as_json: bool) -> int:
    """Measure these scenarios (none: all). Results go into `output`, the report or the JSON to stdout."""
    if not machine.counts_cpu():
        print("pillion: bench needs Linux with /proc/PID/schedstat, and here it counts nothing", file=sys.stderr)
        return 2
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"pillion: no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    try:
        output.mkdir(parents=True, exist_ok=True)  # before minutes of work that could not be kept
    except OSError as error:
        print(f"pillion: --output {output}: {error.strerror}", file=sys.stderr)
        return 2
    # A shell without job control has what it starts in the background ignore SIGINT, which SIGTERM becomes here.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        wanted = names or [name for name in SCENARIOS if not plan.quick or name not in NOT_QUICK]
        result = measure([name for name in SCENARIOS if name in wanted], plan)
    except KeyboardInterrupt:
        print("pillion: bench interrupted; nothing was written", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ignored)
    write(result, output)
    if as_json:
        print(json.dumps(result.as_json(), indent=2))
    else:
        _show(report.markdown(result))
    print(f"pillion: results are in {output}", file=sys.stderr)
    for failure in result.failures:
        print(f"pillion: {failure}", file=sys.stderr)
    return 1 if result.failures else 0


def measure(names: Sequence[str], plan: Plan) -> Result:
    """Run the scenarios of these names, in this order."""
    cores = machine.cores()
    facts = machine.facts()
    if facts.load > BUSY * facts.cpus:
        print(f"pillion: this machine is busy (load average {facts.load}): figures will be noisy", file=sys.stderr)
    options = {"pairs": plan.pairs, "seconds": plan.seconds, "quick": plan.quick, "cores": cores.note}
    result = Result(machine.as_json(facts), options)
    proxies = sum(kind.tool is None or kind.tool.path() is not None for kind in plan.kinds())
    total = sum(SCENARIOS[name].steps(plan, proxies) for name in names)
    with Steps(total) as progress, Stage(cores) as stage:
        run = Run(plan, stage, progress.step, result.failures, result.skipped)
        if plan.quick:
            run.skipped.append("HAProxy and nginx: not part of a quick run")
        for tool in (machine.WRK, machine.K6):
            if tool.path() is None:
                run.skipped.append(tool.missing())
        for name in names:
            try:
                result.scenarios.append(SCENARIOS[name].run(run))
            except NotInstalled as missing:
                result.skipped.append(f"{name}: {missing}")
            except BenchError as error:
                result.failures.append(str(error))
    return result


def write(result: Result, output: Path) -> None:
    """result.json, report.md and a plot a figure."""
    (output / "result.json").write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
    plots = svg.charts(result)
    pictures = "".join(f"![{name.removesuffix('.svg')}]({name})\n" for name in plots)
    (output / "report.md").write_text(report.markdown(result) + "\n" + pictures, encoding="utf-8")
    for name, text in plots.items():
        (output / name).write_text(text, encoding="utf-8")


def _show(markdown: str) -> None:
    """As it is into a file or a pipe, drawn on a terminal."""
    if not sys.stdout.isatty():
        print(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(highlight=False).print(Markdown(markdown))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell without job control starts what is in the background so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)  # event loops have a way out for that one
