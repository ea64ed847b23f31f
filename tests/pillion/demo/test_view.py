"""The live table says what the figures say."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pillion.demo import view
from pillion.demo.report import Edge, Figures

PEER = "spiffe://pillion.local/service/cart"


def shown(rows: list[view.Row], edges: list[Edge]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(view.render(rows, edges, "10 requests"))
    return console.export_text()


def test_rates_success_identity_and_commands_are_shown() -> None:
    figures = Figures({"2xx": 99, "5xx": 1}, {0.001: 50, 0.002: 100, float("inf"): 100})
    row = view.Row("cart", "v2", 11, 22, figures, 10.0, 86_000, "up")
    text = shown([row], [Edge("storefront", "cart|v2", 100, 10.0, 1.0, 1.5, 2.5, True, PEER, 86_000)])
    for words in ("cart v2", "11", "22", "10.0", "99.00 %", "1.0", "2.0", "23 h 53 min", "up"):
        assert words in text
    for words in ("storefront → cart v2", "100 %", "1.5", "2.5", "yes", "spiffe://pillion.local/", " service/cart"):
        assert words in text


def test_a_command_is_one_line_however_narrow_the_terminal() -> None:
    command = "export A=/tmp/some/where B=127.0.0.1:15010; pillion status"
    console = Console(width=20, record=True, file=io.StringIO())
    console.print(view.hints([("do this", command)]), soft_wrap=True)
    assert console.export_text().splitlines()[:2] == ["# do this", command]


def test_the_demo_fits_a_small_terminal() -> None:
    figures = Figures({"2xx": 100}, {0.001: 50, 0.002: 100, float("inf"): 100})
    rows = [view.Row("storefront", "v1", 12345, 12345, figures, 10.0, 86_000, "both gone") for _ in range(5)]
    edges = [Edge("storefront", "payments", 100, 10.0, 1.0, 1.5, 2.5, True, PEER, 86_000) for _ in range(5)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(view.render(rows, edges, "10 requests into the storefront in 10 s, 0 failed\nits gRPC: 10 calls"))
    lines = console.export_text().splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_nothing_known_yet_is_a_dash_and_no_mtls_is_loud() -> None:
    row = view.Row("cart", "v1", None, 22, Figures(), 0.0, None, "sidecar gone")
    text = shown([row], [Edge("a", "b", 1, 1.0, None, None, None, False, None, None)])
    assert "sidecar gone" in text
    assert "NO" in text
    assert "None" not in text


@pytest.mark.parametrize(("share", "text"), [(1.0, "100 %"), (0.999999, "99.99 %"), (0.5, "50.00 %"), (0.0, "0.00 %")])
def test_a_failure_is_never_rounded_away(share: float, text: str) -> None:
    assert view.percent(share) == text
