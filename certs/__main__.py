"""`python -m certs DIR --service NAME...`: a dev CA and SVID files. Exits 2 with one line on bad input."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from certs.ca import TRUST_DOMAIN, Authority

_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")


def main(argv: Sequence[str] | None = None) -> int:
    """Write DIR/ca.pem, DIR/ca.key and, for each service, DIR/NAME.pem and DIR/NAME.key."""
    parser = argparse.ArgumentParser(
        prog="python -m certs",
        # argparse would put DIR last, where --service would take it for a name.
        usage="%(prog)s DIR --service NAME [NAME ...] [--trust-domain NAME] [--days N] [--new-ca] [--expired]",
        description="A CA for development, and certificates for services (SPIFFE SVIDs).",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to write; made if it is not there")
    parser.add_argument(
        "--service", nargs="+", action="extend", required=True, metavar="NAME", type=_service, help="may be repeated"
    )
    parser.add_argument(
        "--trust-domain", default=TRUST_DOMAIN, metavar="NAME", type=_trust_domain, help="default: %(default)s"
    )
    parser.add_argument(
        "--days", default=30, metavar="N", type=_days, help="how long certificates live (default: %(default)s)"
    )
    parser.add_argument("--new-ca", action="store_true", help="make another CA, although DIR has one")
    parser.add_argument("--expired", action="store_true", help="certificates that expired an hour ago, to try refusals")
    options = parser.parse_args(argv)
    directory: Path = options.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if options.new_ca or not (directory / "ca.key").exists():
            authority = Authority.create()
            authority.write(directory)
        else:
            authority = Authority.load(directory)
        starts, lifetime = timedelta(minutes=-5), timedelta(days=options.days)
        if options.expired:
            starts, lifetime = timedelta(hours=-2), timedelta(hours=-1)
        for name in options.service:
            identity = authority.issue(name, trust_domain=options.trust_domain, starts=starts, lifetime=lifetime)
            chain, _ = identity.write(directory, name)
            print(f"{chain}: spiffe://{options.trust_domain}/service/{name}")
    except OSError as error:
        print(f"certs: {error.filename or directory}: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"certs: {error}", file=sys.stderr)
        return 2
    return 0


def _service(text: str) -> str:
    if not _SERVICE.fullmatch(text) or text == "ca":
        raise argparse.ArgumentTypeError(f"{text!r} is not a service name (a-z, 0-9 and -; not ca)")
    return text


def _trust_domain(text: str) -> str:
    if not _TRUST_DOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a trust domain (a-z, 0-9, dot, dash, underscore)")
    return text


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 365:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 365")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
