"""`pillion apply`: change the mesh's configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Annotated

import typer

from pillion.cli.common import (
    DEFAULT_ADDRESS,
    CommandError,
    ControlPlane,
    Json,
    TokenFileOption,
    connect,
    print_json,
)

MAX_BYTES = 8 * 1024 * 1024  # of all files together; the control plane has its own bounds
_TOO_MUCH = f"more than {MAX_BYTES // 1024 // 1024} MiB of YAML; apply fewer files at once"


def apply(
    file: Annotated[
        list[str],
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="YAML; a directory means its *.yaml."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare only.")] = False,
    control_plane: ControlPlane = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    as_json: Json = False,
) -> None:
    """Apply services from YAML: all of them, or on any error none."""
    documents = [document for name in file for document in _read(name)]
    if sum(len(text.encode()) for _, text in documents) > MAX_BYTES:
        raise CommandError(_TOO_MUCH)
    with connect(control_plane, token_file) as connection:
        from pillion.v1.mesh_pb2 import ApplyRequest, Document

        wrapped = [Document(source=source, yaml=text) for source, text in documents]
        answer = connection.call(connection.mesh.Apply, ApplyRequest(documents=wrapped, dry_run=dry_run))
    results = {"added": answer.added, "changed": answer.changed, "unchanged": answer.unchanged}
    if as_json:
        lists = {result: list(names) for result, names in results.items()}
        print_json({"revision": answer.revision, "dry_run": dry_run, **lists})
        return
    for result, names in results.items():
        for name in names:
            print(f"service {name} {result}{' (dry run)' if dry_run else ''}")
    print(f"revision {answer.revision}{', nothing was changed (dry run)' if dry_run else ''}")


def _read(name: str) -> list[tuple[str, str]]:
    if name == "-":
        return [("stdin", _decode("stdin", _bounded(sys.stdin.buffer)))]
    path = Path(name)
    try:
        files = [path]
        if path.is_dir():
            files = sorted(it for it in path.iterdir() if it.suffix in (".yaml", ".yml") and it.is_file())
            if not files:
                raise CommandError(f"{path}: no .yaml file in this directory")
        found = []
        for it in files:
            with it.open("rb") as opened:
                found.append((str(it), _decode(str(it), _bounded(opened))))
        return found
    except OSError as error:
        raise CommandError(f"{error.filename or path}: {error.strerror}") from None


def _bounded(file: IO[bytes]) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise CommandError(_TOO_MUCH)
    return content


def _decode(source: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CommandError(f"{source}:{line}: not UTF-8 text") from None
