"""WHAT A PERSON TYPES: the `pillion` command, one file a subcommand.

Rules of this room:
- grpc, proxy and control_plane are imported inside the command that needs them: `pillion --help` stays quick.
- Results go to stdout (a table, or one JSON object with --json); errors to stderr, one line that says what to
  do.
- Exit codes: 0 done, 2 the input is wrong (and nothing changed), 1 the other side failed or cannot be
  reached.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the `pillion` command.

    The two daemons start without the libraries of the command line: a sidecar runs for months beside every
    instance, and would carry their 15 MB all the while.
    """
    from pillion.cli.daemons import DAEMONS

    daemon = DAEMONS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if daemon is not None:
        sys.exit(daemon(sys.argv[2:]))
    from pillion.cli.commands import run

    run()
