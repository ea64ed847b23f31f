"""The report in Markdown: the answer first, then a table a scenario, then what the figures depend on."""

from __future__ import annotations

from collections.abc import Sequence

from bench import bars, maths
from bench.figures import FIGURES, Figure
from bench.result import CONTROL, DIRECT, ENVOY, HAPROXY, PILLION, Result, Scenario, Subject

_HEADLINES = (
    ("h1-hop", "A hop"),
    ("h1-pair", "A pair of sidecars over mutual TLS"),
    ("grpc-latency", "A pair of sidecars over mutual TLS, with gRPC,"),
)

BAR = "bar (Pillion / Envoy)"
"""The heading over what is to be reached."""


def headline(result: Result) -> str:
    """What a user wants to know, in one line; the first of the scenarios that can say it does."""
    for name, subject in _HEADLINES:
        scenario = result.scenario(name)
        line = _headline(scenario, subject) if scenario is not None else None
        if line is not None:
            return line
    for scenario in result.scenarios:
        for figure in FIGURES.values():
            if ratio := scenario.ratio(figure.name, PILLION, ENVOY):
                return f"{scenario.title}: {figure.title}, Pillion over Envoy: {ratio.median:.2f}"
    return "Nothing to compare: measured without Envoy, or without Pillion."


def _headline(scenario: Scenario, what: str) -> str | None:
    pillion = scenario.subject(PILLION)
    if pillion is None or "added_p50" not in pillion.figures:
        return None
    added = [_shown(pillion, name) for name in ("added_p50", "added_p99")]
    ends = []
    for name, label in ((DIRECT, "direct"), (PILLION, "Pillion"), (ENVOY, "Envoy")):
        subject = scenario.subject(name)
        if subject is not None and "p50" in subject.figures:
            p50, p99 = (_shown(subject, each).removesuffix(" µs") for each in ("p50", "p99"))
            ends.append(f"{label} {p50} / {p99}")
    return f"{what} adds {added[0]} at p50 and {added[1]} at p99 (p50 / p99 in µs: {', '.join(ends)})."


def markdown(result: Result) -> str:
    """The whole report."""
    lines = [headline(result), ""]
    for scenario in result.scenarios:
        lines += [f"## {scenario.title}", "", f"{_sentence(scenario.about)}", "", *table(scenario), ""]
        lines += [f"{note}\n" for note in scenario.notes]
    if result.failures:
        lines += ["## What failed", "", *(f"- {failure}" for failure in result.failures), ""]
    if result.skipped:
        lines += ["## What was skipped", "", *(f"- {reason}" for reason in result.skipped), ""]
    lines += ["## Where and what", "", *_where(result), ""]
    return "\n".join(lines)


def table(scenario: Scenario) -> list[str]:
    """Figures down, proxies across: the median, and in brackets the range over the turns."""
    subjects = [subject for subject in scenario.subjects if subject.name != CONTROL]
    compared = []  # (heading, whose figure, over whose)
    if scenario.subject(PILLION) is not None:
        compared = [(f"Pillion / {s.title}", PILLION, s.name) for s in subjects if s.name in (ENVOY, HAPROXY)]
        if scenario.subject(CONTROL) is not None:
            compared.append(("noise (Pillion again / Pillion)", CONTROL, PILLION))
    head = ["", *(subject.title for subject in subjects), *(heading for heading, _, _ in compared), BAR]
    rows = []
    for figure in FIGURES.values():
        if not any(figure.name in subject.figures for subject in subjects):
            continue
        row = [figure.title, *(cell(subject, figure) for subject in subjects)]
        row += [ratio_cell(scenario.ratio(figure.name, one, other)) for _, one, other in compared]
        rows.append([*row, bars.shown(scenario.name, figure.name)])
    return markdown_table(*without_empty_end(head, rows))


def cell(subject: Subject, figure: Figure) -> str:
    """`61.2 µs (59.8 to 64.0)`, or nothing."""
    values = subject.figures.get(figure.name)
    if not values:
        return ""
    found = maths.summary(values)
    shown = figure.shown(found.median).strip()
    if len(values) == 1:
        return shown
    low, high = (f"{value * figure.scale:,.{figure.digits}f}" for value in (found.low, found.high))
    return f"{shown} ({low} to {high})"


def ratio_cell(ratio: maths.Summary | None) -> str:
    """`0.61 (0.58 to 0.66)`, or nothing."""
    if ratio is None:
        return ""
    if ratio.low == ratio.high:
        return f"{ratio.median:.2f}"
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A GitHub table; what would break a cell is escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]


def without_empty_end(head: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The same without its last column if no row has anything there."""
    if any(row[-1] for row in rows):
        return head, rows
    return head[:-1], [row[:-1] for row in rows]


def _shown(subject: Subject, figure: str) -> str:
    return FIGURES[figure].shown(maths.summary(subject.figures[figure]).median)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _where(result: Result) -> list[str]:
    facts, options = result.facts, result.options
    versions = ", ".join(f"{name} {version}" for name, version in facts["tools"].items())
    lines = [
        f"- {facts['at']}, {facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, load average {facts['load']}",
        f"- {options['cores']}",
        f"- {options['pairs']} turns of {options['seconds']:g} s each{', quick' if options['quick'] else ''}",
        f"- Pillion {facts['pillion']} on Python {facts['python']}; {versions}",
    ]
    seen: dict[str, str] = {}
    for scenario in result.scenarios:
        for subject in scenario.subjects:
            if subject.loaded and subject.name != CONTROL:
                seen[subject.title] = ", ".join(f"{part}: {what}" for part, what in subject.loaded.items())
    return lines + [f"- {title}: {what}" for title, what in seen.items()]
