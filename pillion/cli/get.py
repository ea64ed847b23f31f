"""`pillion get`: read the mesh's configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from pillion.cli.common import (
    DEFAULT_ADDRESS,
    ControlPlane,
    Json,
    TokenFileOption,
    connect,
    print_json,
    print_table,
    printable,
)


def get(
    service: Annotated[str, typer.Argument(help="Print this service's YAML; without it, list all.")] = "",
    control_plane: ControlPlane = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    as_json: Json = False,
) -> None:
    """Show the configuration in force."""
    with connect(control_plane, token_file) as connection:
        from pillion.v1.mesh_pb2 import GetRequest

        answer = connection.call(connection.mesh.Get, GetRequest(service=service))
    if as_json:
        services = [
            {"name": it.name, "protocol": it.protocol, "revision": it.revision, "yaml": it.yaml}
            for it in answer.services
        ]
        print_json({"revision": answer.revision, "services": services})
    elif service:
        print(printable(answer.services[0].yaml.rstrip("\n")))
    else:
        rows = [[it.name, it.protocol, str(it.revision)] for it in answer.services]
        print_table(
            f"revision {answer.revision}",
            ["SERVICE", "PROTOCOL", "REVISION"],
            rows,
            "no services; apply some with: pillion apply -f mesh.yaml",
        )
