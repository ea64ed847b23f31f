"""`pillion token`: let one instance of a service join the mesh."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from pillion.cli.common import (
    DEFAULT_ADDRESS,
    CommandError,
    ControlPlane,
    Json,
    TokenFileOption,
    connect,
    iso,
    print_json,
)

_DURATION = re.compile(r"(?=.)(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,5})s)?")


def token(
    service: Annotated[str, typer.Argument(help="The service that the token lets one instance join.")],
    lifetime: Annotated[str, typer.Option(metavar="DURATION", help="At most 24h.")] = "10m",
    control_plane: ControlPlane = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    as_json: Json = False,
) -> None:
    """Print a join token file for a service; it can be used once."""
    found = _DURATION.fullmatch(lifetime)
    if found is None:
        raise CommandError(f"--lifetime {lifetime!r} is not a duration, such as 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if (total := hours * 3600 + minutes * 60 + seconds) == 0:
        raise CommandError("--lifetime must be more than zero")
    with connect(control_plane, token_file) as connection:
        import grpc
        from google.protobuf.duration_pb2 import Duration

        from pillion.v1.mesh_pb2 import CreateTokenRequest, GetRequest

        request = CreateTokenRequest(service=service, lifetime=Duration(seconds=total))
        answer = connection.call(connection.mesh.CreateToken, request)
        configured = True
        try:
            connection.call(connection.mesh.Get, GetRequest(service=service))
        except grpc.RpcError as error:  # the token is made: nothing may stand between it and its owner
            configured = error.code() is not grpc.StatusCode.NOT_FOUND
    if as_json:
        print_json({"service": service, "token_file": answer.token_file, "expires": iso(answer.expires)})
    else:
        print(answer.token_file, end="")
    if not configured:  # mistyped, it would become a sidecar that nobody can call
        print(f"pillion: note: no service '{service}' is configured; nobody can call it until it is", file=sys.stderr)
