"""Bar charts as SVG text, without a plotting library; legible on light and on dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench import maths
from bench.figures import FIGURES, Figure
from bench.result import CONTROL, DIRECT, Result, Scenario

_WIDTH, _LEFT, _RIGHT = 720, 110, 150
_BAR, _GAP, _GROUP_GAP, _TOP = 18, 6, 34, 44
_COLOURS = {"pillion": "#3b82f6", "envoy": "#d97706", "haproxy": "#10b981", "nginx": "#8b5cf6", DIRECT: "#6b7280"}
_STYLE = """\
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.range{stroke:#1f2328}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.range{stroke:#e6edf3}}"""

CHARTS = (
    "added_p50",
    "added_p99",
    "cpu",
    "cpu_saturated",
    "bytes_per_cpu_second",
    "handshakes_per_cpu_second",
    "memory_alone",
)
"""Figures that are drawn."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. `low` and `high` are the ends of its range, all in the chart's unit."""

    label: str
    colour: str
    value: float
    low: float
    high: float
    shown: str


@dataclass(frozen=True, slots=True)
class Group:
    """Bars under one heading."""

    label: str
    bars: tuple[Bar, ...]


def charts(result: Result) -> dict[str, str]:
    """File name → SVG, one for each figure of CHARTS that was measured."""
    found = {}
    for name in CHARTS:
        figure = FIGURES[name]
        groups = [group for scenario in result.scenarios if (group := _group(figure, scenario))]
        if groups:
            better = "more" if figure.higher_is_better else "less"
            found[f"{name.replace('_', '-')}.svg"] = chart(f"{figure.title} ({better} is better)", groups)
    return found


def chart(title: str, groups: Sequence[Group]) -> str:
    """Horizontal bars from zero, with the range over the turns as a line."""
    top = max((max(bar.value, bar.high) for group in groups for bar in group.bars), default=0.0)
    parts, y = [_text(10, 24, title, "title")], _TOP
    for group in groups:
        y += _GROUP_GAP - _BAR
        parts.append(_text(10, y, group.label))
        y += _GAP
        for bar in group.bars:
            parts += _bar(bar, y, top)
            y += _BAR + _GAP
    height = y + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">\n'
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(bar: Bar, y: int, top: float) -> list[str]:
    length = max(1.0, _length(bar.value, top))
    low, high = (_LEFT + _length(end, top) for end in (bar.low, bar.high))
    middle = y + _BAR / 2
    parts = [
        _text(_LEFT - 8, y + 14, bar.label, anchor="end"),
        f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{bar.colour}"/>',
    ]
    if bar.high > bar.low:
        parts.append(f'<path class="range" d="M{low:.1f} {middle}H{high:.1f}"/>')
    parts.append(_text(max(_LEFT + length, high) + 8, y + 14, bar.shown))
    return parts


def _length(value: float, top: float) -> float:
    """In pixels; what is below zero, after a subtraction, is nothing."""
    return (_WIDTH - _LEFT - _RIGHT) * (value / top) if value > 0 else 0.0


def _text(x: float, y: float, text: str, class_: str = "", anchor: str = "") -> str:
    more = f' class="{class_}"' * bool(class_) + f' text-anchor="{anchor}"' * bool(anchor)
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def _group(figure: Figure, scenario: Scenario) -> Group | None:
    bars = []
    for subject in scenario.subjects:
        values = subject.figures.get(figure.name)
        if values and subject.name != CONTROL:
            found = maths.summary(values)
            value, low, high = (end * figure.scale for end in (found.median, found.low, found.high))
            colour = _COLOURS.get(subject.name, "#6b7280")
            bars.append(Bar(subject.title, colour, value, low, high, figure.shown(found.median).strip()))
    return Group(scenario.title, tuple(bars)) if bars else None
