"""How sidecars stand between client and upstream: one hop, a pair over mutual TLS, TCP, a server that only answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from bench.sidecar import Identities, Sidecar
from pillion.demo.processes import free_ports


class Surroundings(Protocol):
    """What a shape needs: upstreams and certificates."""

    @property
    def identities(self) -> Identities: ...
    def upstream(self, kind: str) -> int:
        """The port of the server of this kind (Stage.upstream)."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one proxy is set up."""

    surroundings: Surroundings
    name: str
    directory: Path

    def sidecar(
        self, role: Literal["http", "tcp", "reply"], upstream: int, suffix: str = "", clusters: int = 1
    ) -> Sidecar:
        """A plaintext sidecar on free ports, with a log in the directory."""
        listen, admin = free_ports(2)
        name = self.name + suffix
        return Sidecar(name, role, listen, upstream, admin, self.directory / f"{name}-access.log", clusters=clusters)


@dataclass(frozen=True, slots=True)
class Shape:
    """`role` decides which proxies can do it; `sidecars` are listed from the client on."""

    role: Literal["http", "tcp", "reply"]
    sidecars: Callable[[Site], list[Sidecar]]


def hop(upstream: str = "http", clusters: int = 1, http2: bool = False) -> Shape:
    """One plaintext hop with this many clusters, each with a virtual host, to the server of this kind."""

    def sidecars(site: Site) -> list[Sidecar]:
        found = site.sidecar("http", site.surroundings.upstream(upstream), clusters=clusters)
        return [replace(found, http2=http2)]

    return Shape("http", sidecars)


def pair(upstream: str = "http", http2: bool = False) -> Shape:
    """Two sidecars with mutual TLS between them; plaintext on both ends."""

    def sidecars(site: Site) -> list[Sidecar]:
        identities = site.surroundings.identities
        inbound = site.sidecar("http", site.surroundings.upstream(upstream), "-in")
        outbound = site.sidecar("http", inbound.listen, "-out")
        return [
            replace(outbound, upstream_tls=identities.outbound, http2=http2),
            replace(inbound, downstream=identities.inbound, http2=http2),
        ]

    return Shape("http", sidecars)


def _tcp(site: Site) -> list[Sidecar]:
    return [site.sidecar("tcp", site.surroundings.upstream("bytes"))]


def _reply(site: Site) -> list[Sidecar]:
    return [replace(site.sidecar("reply", 1), downstream=site.surroundings.identities.inbound)]


HOP: Final = hop()
PAIR: Final = pair()
TCP: Final = Shape("tcp", _tcp)
REPLY: Final = Shape("reply", _reply)
