"""What the commands share: their common options, calls to the control plane, and how results and errors
look.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import grpc
    from google.protobuf.timestamp_pb2 import Timestamp

TIMEOUT = 10.0  # seconds for one call

ControlPlane = Annotated[
    str,
    typer.Option("--control-plane", metavar="HOST:PORT", envvar="PILLION_CONTROL_PLANE", help="The gRPC address."),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        envvar="PILLION_TOKEN_FILE",
        help="The operator's token; default $PILLION_HOME/control-plane/operator.token; PILLION_HOME is ~/.pillion.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DEFAULT_ADDRESS = "127.0.0.1:15010"


class CommandError(Exception):
    """A command failed; the message is for the user. `code` is the exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


class Connection:
    """An authenticated channel to the control plane."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        from pillion.v1 import mesh_pb2_grpc

        self.mesh = mesh_pb2_grpc.MeshControlStub(channel)
        self._metadata = metadata

    def call(self, method: Any, request: Any) -> Any:
        """One unary call with the token and a timeout."""
        return method(request, timeout=TIMEOUT, metadata=self._metadata)


@contextmanager
def connect(address: str, token_file: Path | None) -> Iterator[Connection]:
    """A connection for the commands of the operator.

    Raises CommandError, also for what fails inside the block.
    """
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}", address):
        raise CommandError(f"--control-plane {address!r} is not HOST:PORT, such as {DEFAULT_ADDRESS}")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr say less than ours
    import grpc

    from pillion.client import TokenFile, bearer, channel

    home = Path(os.environ.get("PILLION_HOME") or "~/.pillion").expanduser()
    path = token_file or home / "control-plane" / "operator.token"
    try:
        credentials = TokenFile.load(path)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file; give the control plane's operator.token with --token-file") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    with channel(address, credentials.roots_pem) as opened:
        try:
            yield Connection(opened, bearer(credentials.token))
        except grpc.RpcError as error:
            raise _explain(error, address, path) from None


def _explain(error: Any, address: str, token_file: Path) -> CommandError:
    import grpc

    from pillion.client import another_mesh, is_another_mesh

    status, details = error.code(), error.details() or ""
    if status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        return CommandError(details)
    if status is grpc.StatusCode.UNAUTHENTICATED:
        return CommandError(f"{token_file}: {details}", 1)
    if status is grpc.StatusCode.UNAVAILABLE:
        if is_another_mesh(details):
            return CommandError(f"{another_mesh(address, token_file)}; give its operator.token with --token-file", 1)
        reason = details.rpartition(": ")[2].lower().rstrip("]}. ")
        return CommandError(
            f"cannot reach the control plane at {address} ({reason}); start it with: pillion control-plane", 1
        )
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = f"the control plane at {address} did not answer within {TIMEOUT:g} s"
        return CommandError(f"{text}; what was asked for may still be done: pillion get shows what is in force", 1)
    name = status.name.lower().replace("_", " ") if status else "error"
    return CommandError(f"{address}: {name}: {details}", 1)


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    json.dump(value, sys.stdout, indent=2)
    print()


def print_table(title: str, columns: list[str], rows: list[list[str]], empty: str) -> None:
    """A table on stdout, or the line `empty`.

    Values are printed as they are: no markup, control characters escaped.
    """
    if not rows:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print(title)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # a pipe has no width; do not fold
    console.print(table)


def printable(text: str) -> str:
    """The text without control characters: what came over the network must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def iso(at: Timestamp) -> str:
    """RFC 3339, whole seconds."""
    return str(at.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"))
