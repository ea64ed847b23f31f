"""WHAT A PERSON TYPES: the `pillion` command, one file a subcommand.

Rules of this room:
- grpc, proxy and control_plane are imported inside the command that needs them: `pillion --help` stays quick.
- Results go to stdout (a table, or one JSON object with --json); errors to stderr, one line that says what to
  do.
- Exit codes: 0 done, 2 the input is wrong (and nothing changed), 1 the other side failed or cannot be
  reached.
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from pillion.cli import apply, control_plane, demo, get, proxy, status, token
from pillion.cli.common import CommandError

app = typer.Typer(
    name="pillion",
    help="A service mesh you can read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# proxy and control-plane parse their own arguments: `python -m proxy` and `python -m control_plane` are the
# same.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command("demo", short_help="Run a whole mesh on this machine.")(demo.demo)
app.command("control-plane", context_settings=_PASSED_ON, add_help_option=False)(control_plane.control_plane)
app.command("proxy", context_settings=_PASSED_ON, add_help_option=False)(proxy.proxy)
app.command("token", short_help="Print a join token for a service.")(token.token)
app.command("apply", short_help="Apply services from YAML.")(apply.apply)
app.command("get")(get.get)
app.command("status", short_help="Show the connected proxies and instances.")(status.status)


def main() -> None:
    """The entry point of the `pillion` command."""
    if sys.stdout is None:  # closed by the caller, who wants the exit code only
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for the life of the process
    try:
        app()
    except CommandError as error:
        print(f"pillion: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("pillion: cannot write the output: no space left on the device", file=sys.stderr, flush=True)
        os._exit(1)  # else Python tries once more to write it, and says so in its own words
