"""The README's figures from a result: `python -m bench.readme RESULT.json [README.md]`.

What stands between the two marker comments is replaced; nothing else is touched.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from bench import bars
from bench.errors import BenchError
from bench.figures import FIGURES
from bench.report import cell, headline, markdown_table, ratio_cell, without_empty_end
from bench.result import CONTROL, DIRECT, ENVOY, PILLION, Result, load

BEGIN = "<!-- bench: what follows is written by python -m bench.readme -->"
END = "<!-- bench: end -->"

SHOWN = (
    "added_p50",
    "added_p99",
    "cpu",
    "cpu_saturated",
    "bytes_per_cpu_second",
    "handshakes_per_cpu_second",
    "memory_alone",
)


def block(result: Result) -> str:
    """Headline, table, and how to get the same."""
    names: dict[str, str] = {}
    for scenario in result.scenarios:
        for subject in scenario.subjects:
            if subject.name not in (DIRECT, CONTROL):
                names[subject.name] = subject.title
    head = ["", *names.values(), "Pillion / Envoy", "bar"]
    rows = []
    for scenario in result.scenarios:
        for name in SHOWN:
            figure = FIGURES[name]
            found = [scenario.subject(each) for each in names]
            if not any(subject is not None and name in subject.figures for subject in found):
                continue
            cells = [cell(subject, figure) if subject is not None else "" for subject in found]
            ratio = ratio_cell(scenario.ratio(name, PILLION, ENVOY))
            cells = [f"{scenario.title}: {figure.title}", *(each.partition(" (")[0] for each in cells), ratio]
            rows.append([*cells, bars.shown(scenario.name, name)])
    facts, options = result.facts, result.options
    versions = ", ".join(
        f"{kind} {facts['tools'][kind]}" for kind in ("envoy", "haproxy", "nginx") if kind in facts["tools"]
    )
    medians = f"Medians of {options['pairs']} turns" if options["pairs"] > 1 else "One turn"
    how = (
        f"`pillion bench` on {facts['at'][:10]}: {facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, "
        f"Python {facts['python']}, {versions}. {medians} of {options['seconds']:g} s; in "
        "brackets the range of the ratio over the turns. CPU and memory are per sidecar."
    )
    return "\n\n".join(
        (headline(result), "\n".join(markdown_table(*without_empty_end(head, rows))), textwrap.fill(how, 120))
    )


def replaced(text: str, new: str) -> str:
    """The README's text with `new` between the markers. Raises BenchError when it has not exactly one pair."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BenchError(f"needs one line {BEGIN} and after it one line {END}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{new}\n{END}{rest.partition(END)[2]}"


def main(argv: list[str]) -> int:
    """Exit status 2 with one line when the files are not what they should be."""
    if len(argv) not in (1, 2) or argv[0].startswith("-"):
        print("usage: python -m bench.readme RESULT.json [README.md]", file=sys.stderr)
        return 2
    readme = Path(argv[1] if len(argv) == 2 else "README.md")
    try:
        new = block(load(Path(argv[0])))
        text = replaced(readme.read_text(encoding="utf-8"), new)
    except BenchError as error:
        print(f"bench.readme: {readme}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"bench.readme: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
