"""What one sidecar of a scenario is to do, before it is said in any proxy's own words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from certs import Authority

TRUST_DOMAIN = "bench.local"


@dataclass(frozen=True, slots=True)
class Tls:
    """One leg's mutual TLS: what is shown, whom to trust, and the one identity that the peer may have.

    `combined` is chain and key in one file, as HAProxy wants it.
    """

    chain: Path
    key: Path
    combined: Path
    roots: Path
    peer: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One proxy process: 127.0.0.1:`listen` → 127.0.0.1:`upstream`.

    `role`: http routes requests, tcp passes bytes, reply answers 200 by itself. `clusters`: how many there are;
    requests use the first. `http2`: HTTP/2 on both legs, else HTTP/1.1.
    """

    name: str
    role: Literal["http", "tcp", "reply"]
    listen: int
    upstream: int
    admin: int
    log: Path
    downstream: Tls | None = None
    upstream_tls: Tls | None = None
    clusters: int = 1
    http2: bool = False


class Identities:
    """Certificates for the two ends of a pair, `out` and `in`, from a CA that lives in memory."""

    def __init__(self, directory: Path) -> None:
        """Write them into `directory`. Raises OSError."""
        authority = Authority.create(timedelta(days=2))
        roots = directory / "ca.pem"
        roots.write_bytes(authority.pem)
        found = {}
        for name, peer in (("out", "in"), ("in", "out")):
            identity = authority.issue(name, trust_domain=TRUST_DOMAIN, lifetime=timedelta(days=1))
            chain, key = identity.write(directory, name)
            combined = directory / f"{name}-both.pem"
            combined.touch(0o600)
            combined.write_bytes(identity.chain + identity.key)
            found[name] = Tls(chain, key, combined, roots, f"spiffe://{TRUST_DOMAIN}/service/{peer}")
        self.outbound, self.inbound = found["out"], found["in"]
