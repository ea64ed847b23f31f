"""`pillion bench`: what a hop costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCENARIO",
            help="direct, h1-hop, h1-pair, grpc-hop, grpc-pair, grpc-stream, grpc-stream-pair, grpc-latency, tcp, "
            "handshakes, idle-memory-10, idle-memory-1000; default: all.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Pillion and Envoy only, about two minutes.")] = False,
    pairs: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1000, help="Turns of each proxy; default 7, quick 2.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.2, max=600, help="Length of a window; default 3, quick 0.5.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where results go.")] = Path("bench-results"),
) -> None:
    """Measure what a sidecar costs: CPU, latency, memory, beside Envoy, HAProxy and nginx where they are installed."""
    from bench.main import run
    from bench.plan import Plan

    plan = Plan(pairs or (2 if quick else 7), seconds or (0.5 if quick else 3.0), quick)
    raise typer.Exit(run(scenarios or (), plan, output, as_json))
