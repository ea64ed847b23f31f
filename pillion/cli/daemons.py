"""`pillion proxy` and `pillion control-plane`, which parse their own arguments: `python -m proxy` and `python -m
control_plane` are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


def proxy(argv: list[str]) -> int:
    """Run a sidecar, from a bootstrap file or in the mesh."""
    from proxy.agent.options import parse

    options = parse(argv)  # before the rest is imported: a mistake is answered at once
    from proxy.agent.main import run

    return run(options)


def control_plane(argv: list[str]) -> int:
    """Run the control plane: configuration, xDS, registry and CA."""
    from control_plane.options import parse

    options = parse(argv)
    from control_plane.server import run

    return run(options)


DAEMONS: Final[dict[str, Callable[[list[str]], int]]] = {"proxy": proxy, "control-plane": control_plane}
