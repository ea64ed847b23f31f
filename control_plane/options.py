"""The control plane's options: how they are written on the command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Options:
    """Addresses are (host, port); port 0 takes a free one."""

    data_dir: Path
    grpc: tuple[str, int] = ("127.0.0.1", 15010)
    web: tuple[str, int] = ("127.0.0.1", 15014)
    trust_domain: str = "pillion.local"
    log_level: str = "info"


_DEFAULT = Options(Path())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def home() -> Path:
    """$PILLION_HOME, default ~/.pillion."""
    return Path(os.environ.get("PILLION_HOME") or "~/.pillion").expanduser()


def parse(argv: Sequence[str]) -> Options:
    """The options of a command line.

    Exits with status 2 and one line that names the option if one is wrong.
    """
    parser = _Parser(
        prog="pillion control-plane",
        description="Run the control plane: configuration store, xDS, registry and CA.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="default $PILLION_HOME/control-plane; PILLION_HOME is ~/.pillion"
    )
    parser.add_argument(
        "--grpc", type=_address, default=_DEFAULT.grpc, metavar="HOST:PORT", help="default 127.0.0.1:15010"
    )
    parser.add_argument(
        "--web", type=_address, default=_DEFAULT.web, metavar="HOST:PORT", help="default 127.0.0.1:15014"
    )
    parser.add_argument(
        "--trust-domain", type=_domain, default=_DEFAULT.trust_domain, metavar="NAME", help="default pillion.local"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default=_DEFAULT.log_level)
    found = parser.parse_args(argv)
    data_dir = found.data_dir.expanduser() if found.data_dir is not None else home() / "control-plane"
    return Options(data_dir.absolute(), found.grpc, found.web, found.trust_domain, found.log_level)


def _address(text: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:15010 or [::1]:0")
    return found["host"].strip("[]"), int(found["port"])


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a trust domain (a-z, 0-9, '.', '-', '_')")
    return text
