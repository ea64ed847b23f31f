"""`pillion proxy`: run a sidecar."""

from __future__ import annotations

import typer


def proxy(context: typer.Context) -> None:
    """Run a sidecar, from a bootstrap file or in the mesh."""
    from proxy.agent.options import parse

    options = parse(context.args)
    from proxy.agent.main import run

    raise typer.Exit(run(options))
