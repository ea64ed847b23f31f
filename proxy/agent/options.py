"""The command line of `pillion proxy`: parse(argv) gives frozen Options, or one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from proxy.agent.log import LEVELS

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_INSTANCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_LABEL = re.compile(r"(?P<key>[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?)=(?P<value>[A-Za-z0-9._-]{0,63})")
# GEP-2257: one to four components, each a number of at most five digits and a unit.
_DURATION = re.compile(r"(?:\d{1,5}(?:h|ms|m|s)){1,4}", re.ASCII)
_COMPONENT = re.compile(r"(\d+)(h|ms|m|s)", re.ASCII)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What a sidecar under a control plane needs to know about itself."""

    service: str
    instance: str
    app_port: int
    control_plane: str
    token_file: Path
    state_dir: Path
    outbound_port: int
    inbound_port: int
    # Where other sidecars reach the inbound listener; None: the local address used to reach the control plane.
    address: str | None
    labels: tuple[tuple[str, str], ...]

    @property
    def node_id(self) -> str:
        """The id of this sidecar in xDS."""
        return f"{self.service}~{self.instance}"


@dataclass(frozen=True, slots=True)
class Options:
    """Exactly one of `bootstrap` (a file) and `mesh` is set. Times are seconds."""

    bootstrap: Path | None
    mesh: MeshOptions | None
    # None in bootstrap mode unless given: the file's `admin` decides.
    admin_port: int | None
    workers: int = 1
    log_level: str = "info"
    allow_unsupported: bool = False
    drain_time: float = 5.0


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line, which say where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parse(argv: Sequence[str], prog: str = "pillion proxy") -> Options:
    """Options from the arguments after the program's name. Exits with status 2 on bad ones, 0 after --help."""
    parser = _build(prog)
    args = parser.parse_args(list(argv))
    if args.bootstrap is not None:
        mesh_only = {
            "--service": args.service,
            "--app-port": args.app_port,
            "--control-plane": args.control_plane,
            "--token-file": args.token_file,
            "--instance": args.instance,
            "--address": args.address,
            "--label": args.label or None,
            "--state-dir": args.state_dir,
            "--outbound-port": args.outbound_port,
            "--inbound-port": args.inbound_port,
        }
        if given := [flag for flag, value in mesh_only.items() if value is not None]:
            parser.error(f"{given[0]} cannot be combined with -c: the bootstrap file says it all")
        mesh, admin_port = None, args.admin_port
    else:
        mesh = _mesh(parser, args)
        admin_port = 15000 if args.admin_port is None else args.admin_port
    return Options(
        bootstrap=args.bootstrap,
        mesh=mesh,
        admin_port=admin_port,
        workers=args.workers,
        log_level=args.log_level,
        allow_unsupported=args.allow_unsupported,
        drain_time=args.drain_time,
    )


def _mesh(parser: _Parser, args: argparse.Namespace) -> MeshOptions:
    needed = {
        "--service": args.service,
        "--app-port": args.app_port,
        "--control-plane": args.control_plane,
        "--token-file": args.token_file,
    }
    missing = [flag for flag, value in needed.items() if value is None]
    if len(missing) == len(needed):
        parser.error("give -c BOOTSTRAP, or --service, --app-port, --control-plane and --token-file")
    if missing:
        parser.error(f"{', '.join(missing)} missing: a sidecar in the mesh needs {', '.join(needed)}")
    outbound = 15001 if args.outbound_port is None else args.outbound_port
    inbound = 15006 if args.inbound_port is None else args.inbound_port
    admin = 15000 if args.admin_port is None else args.admin_port
    ports = {
        "--outbound-port": outbound,
        "--inbound-port": inbound,
        "--admin-port": admin,
        "--app-port": args.app_port,
    }
    seen: dict[int, str] = {}
    for flag, port in ports.items():
        if port and port in seen:
            parser.error(f"{flag} and {seen[port]} are both {port}")
        seen[port] = flag
    labels = dict(args.label or ())
    if len(labels) != len(args.label or ()):
        parser.error("--label: a key is given twice")
    instance = args.instance or default_instance(inbound)
    home = Path(os.environ.get("PILLION_HOME") or "~/.pillion").expanduser()
    return MeshOptions(
        service=args.service,
        instance=instance,
        app_port=args.app_port,
        control_plane=args.control_plane,
        token_file=args.token_file,
        state_dir=args.state_dir or home / "proxy" / f"{args.service}~{instance}",
        outbound_port=outbound,
        inbound_port=inbound,
        address=args.address,
        labels=tuple(sorted(labels.items())),
    )


def default_instance(inbound_port: int) -> str:
    """This host's name and the inbound port: unique in the mesh, and the same after a restart."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-") or "localhost"
    return f"{host[:100]}-{inbound_port}"


def _build(prog: str) -> _Parser:
    parser = _Parser(
        prog=prog,
        usage=f"{prog} -c FILE [options]\n"
        f"       {prog} --service NAME --app-port P --control-plane HOST:PORT --token-file F [options]",
        allow_abbrev=False,
        description="Run a sidecar: from an Envoy v3 bootstrap file (-c), or as a member of a mesh (--service ...).",
    )
    add = parser.add_argument
    add(
        "-c",
        "--config-path",
        dest="bootstrap",
        type=_file,
        metavar="FILE",
        help="Envoy v3 bootstrap, YAML or JSON",
    )
    add("--allow-unsupported", action="store_true", help="warn about unsupported fields instead of failing")
    add("--service", type=_service, metavar="NAME", help="the service that this sidecar belongs to")
    add("--app-port", type=_port, metavar="P", help="the application's port on 127.0.0.1")
    add("--control-plane", type=_host_port, metavar="HOST:PORT", help="the control plane's gRPC address")
    add("--token-file", type=_file, metavar="F", help="join token, made with: pillion token NAME")
    add(
        "--instance",
        type=_instance,
        metavar="ID",
        help="unique within the service (default HOSTNAME-INBOUND_PORT)",
    )
    add(
        "--address",
        type=_address,
        metavar="IP",
        help="where other sidecars reach this one (default: found out)",
    )
    add(
        "--label",
        action="append",
        type=_label,
        metavar="K=V",
        help="a label of this instance; may be repeated",
    )
    add("--outbound-port", type=_port, metavar="P", help="the application sends here (default 15001)")
    add("--inbound-port", type=_port, metavar="P", help="other sidecars send here, mTLS only (default 15006)")
    add("--admin-port", type=_port_or_any, metavar="P", help="admin on 127.0.0.1 (default 15000; 0: any free)")
    add(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="last good configuration and sealed identity live here (default $PILLION_HOME/proxy/SERVICE~INSTANCE; "
        "PILLION_HOME is ~/.pillion)",
    )
    add("--workers", type=_workers, default=1, metavar="N", help="worker processes (default 1)")
    add(
        "--drain-time",
        type=duration,
        default=5.0,
        metavar="D",
        help="finish requests for at most this, such as 250ms or 1m30s (default 5s)",
    )
    add("--log-level", choices=LEVELS, default="info", metavar="L", help=", ".join(LEVELS))
    return parser


def duration(text: str) -> float:
    """Seconds of a GEP-2257 duration such as 250ms, 2s or 1m30s. Raises ArgumentTypeError."""
    if not _DURATION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 250ms, 5s or 1m30s")
    return sum(int(number) * _SECONDS[unit] for number, unit in _COMPONENT.findall(text))


def _file(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a directory")
    return path


def _number(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
    return int(text)


def _port(text: str) -> int:
    return _number(text, 1, 65535)


def _port_or_any(text: str) -> int:
    return _number(text, 0, 65535)


def _workers(text: str) -> int:
    return _number(text, 1, 64)


def _service(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a service name (a-z, 0-9 and inner hyphens, at most 63)")
    return text


def _instance(text: str) -> str:
    if not _INSTANCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an instance id (letters, digits, inner . _ -, at most 128)")
    return text


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:  # endpoints travel as addresses (EDS), so that no proxy needs to resolve names
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None
    return text


def _host_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or any(char.isspace() or char in "/@" for char in host):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    _port(port)
    return text


def _label(text: str) -> tuple[str, str]:
    found = _LABEL.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return found["key"], found["value"]
