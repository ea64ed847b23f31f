"""`pillion demo`: a whole mesh on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from pillion.cli.common import Json


def demo(
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1.0, help="End by itself; default: until Ctrl-C.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a whole mesh on this machine: services, sidecars, traffic, and a live table."""
    from pillion.demo.main import run

    raise typer.Exit(run(duration=duration, as_json=as_json))
