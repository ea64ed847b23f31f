"""`pillion control-plane`: run the control plane."""

from __future__ import annotations

import typer


def control_plane(context: typer.Context) -> None:
    """Run the control plane: configuration, xDS, registry and CA."""
    from control_plane.options import parse

    options = parse(context.args)
    from control_plane.server import run

    raise typer.Exit(run(options))
