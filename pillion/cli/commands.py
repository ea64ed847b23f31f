"""The commands that come and go, with typer: everything but the daemons."""

from __future__ import annotations

import errno
import os
import sys
from importlib import metadata

import typer

from pillion.cli import apply, bench, demo, get, status, token
from pillion.cli.common import CommandError
from pillion.cli.daemons import DAEMONS

app = typer.Typer(
    name="pillion",
    help="A service mesh you can read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", short_help="Run a whole mesh on this machine.")(demo.demo)
for _name, _daemon in DAEMONS.items():  # main() starts them; here they are for the list of commands
    app.command(_name, help=_daemon.__doc__)(lambda: None)
app.command("token", short_help="Print a join token for a service.")(token.token)
app.command("apply", short_help="Apply services from YAML.")(apply.apply)
app.command("get")(get.get)
app.command("status", short_help="Show the connected proxies and instances.")(status.status)
app.command("bench", short_help="Measure what a sidecar costs, beside Envoy.")(bench.bench)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pillion {metadata.version('pillion')}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def run() -> None:
    """Run the command that sys.argv names; every error is one line and an exit code."""
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
