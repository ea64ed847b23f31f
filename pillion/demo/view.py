"""The live table: what a person sees while the demo runs. Values in, rich renderables out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pillion.demo.report import Edge, Figures


@dataclass(frozen=True, slots=True)
class Row:
    """One instance: an app and its sidecar. `seconds` is the period of `figures`."""

    service: str
    version: str
    app_pid: int | None
    sidecar_pid: int
    figures: Figures
    seconds: float
    certificate_seconds_left: float | None
    state: str


def render(rows: Sequence[Row], found: Sequence[Edge], headline: str) -> RenderableType:
    """The whole picture, in the order given, within 80 columns and 24 lines: a taller one cannot be drawn in place."""
    return Group(Text(headline, style="bold"), "", _services(rows), "", _edges(found))


def hints(commands: Sequence[tuple[str, str]]) -> Text:
    """(what it shows, the command line), to be printed once and without folding, so that each can be copied whole."""
    text = Text()
    for what, command in commands:
        text.append(f"# {what}\n", style="dim")
        text.append(f"{command}\n")
    return text


def _services(rows: Sequence[Row]) -> Table:
    table = _table("Services (what each instance received)", "service")
    for name in ("app pid", "sidecar", "req/s", "success", "p50 ms", "p99 ms", "certificate"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state")
    for row in rows:
        figures = row.figures
        table.add_row(
            f"{row.service} {row.version}".strip(),
            str(row.app_pid or "-"),
            str(row.sidecar_pid),
            f"{figures.requests / row.seconds:.1f}" if row.seconds > 0 and figures.requests else "-",
            *_cells(figures.success, figures.quantile_ms(0.5), figures.quantile_ms(0.99)),
            _remaining(row.certificate_seconds_left),
            Text(row.state, style="green" if row.state == "up" else "red"),
        )
    return table


def _edges(found: Sequence[Edge]) -> Table:
    table = _table("Edges (what each service sent)", "from → to")
    for name in ("req/s", "success", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mTLS", no_wrap=True)
    # What all identities begin with stands in the heading: 80 columns are few.
    prefixes = {edge.peer.partition("service/")[0] for edge in found if edge.peer}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    table.add_column(f"verified peer {prefix}".strip(), overflow="fold")
    for edge in found:
        table.add_row(
            f"{edge.source} → {edge.destination.replace('|', ' ')}",
            f"{edge.rps:.1f}",
            *_cells(edge.success, edge.p50_ms, edge.p99_ms),
            Text("yes", style="green") if edge.mtls else Text("NO", style="bold red"),
            (edge.peer or "-").removeprefix(prefix),
        )
    return table


def _table(title: str, first: str) -> Table:
    """Narrow enough for 80 columns."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.header_style = "dim"
    table.add_column(first, no_wrap=True)
    return table


def _cells(success: float | None, p50: float | None, p99: float | None) -> tuple[Text, str, str]:
    rate = Text("-") if success is None else Text(percent(success), style="green" if success == 1 else "red")
    return rate, "-" if p50 is None else f"{p50:.1f}", "-" if p99 is None else f"{p99:.1f}"


def percent(share: float) -> str:
    """Never rounds a failure away: 100 % means every one."""
    if share == 1:
        return "100 %"
    return f"{min(share * 100, 99.99):.2f} %"


def _remaining(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds <= 0:
        return "expired"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"
