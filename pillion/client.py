"""The typed client for the control plane: token files and authenticated channels. Agent and command line use it.

A token file is text: a first line `IDENTITY TOKEN`, then the mesh's root certificates (PEM). It carries the trust
that a first connection needs, so nothing has to be trusted on first use. IDENTITY is the SPIFFE id that the token
is for (a join token), or `operator@TRUST_DOMAIN` (the control plane's operator token).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

SERVER_NAME = "pillion-control-plane"
"""The DNS name in the control plane's certificate; clients expect it whatever address they dial."""

_SPIFFE = re.compile(r"spiffe://(?P<domain>[a-z0-9._-]+)/service/(?P<service>[a-z0-9]([a-z0-9-]*[a-z0-9])?)")
_OPERATOR = re.compile(r"operator@(?P<domain>[a-z0-9._-]+)")

# Keep-alive, so that a control plane that vanished without a FIN is noticed within half a minute.
CHANNEL_OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without it the wait grows to two minutes, and a control plane that is back would not be noticed for as long.
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The content of a token file. `service` is empty for an operator's."""

    identity: str
    trust_domain: str
    service: str
    token: str
    roots_pem: str

    def __repr__(self) -> str:
        return f"TokenFile({self.identity})"  # never the token

    def render(self) -> str:
        """The text to write; parse(render()) is the same value."""
        return f"{self.identity} {self.token}\n{self.roots_pem}"

    @classmethod
    def parse(cls, text: str, source: str = "token file") -> TokenFile:
        """Raises ValueError with what is wrong and how to get a good file."""
        first, _, roots = text.partition("\n")
        words = first.split()
        if len(words) != 2 or "-----BEGIN CERTIFICATE-----" not in roots:
            raise ValueError(
                f"{source}: not a token file (a line IDENTITY TOKEN, then certificates): a sidecar's is made with "
                "pillion token SERVICE, the operator's is operator.token of the control plane's data directory"
            )
        if found := _SPIFFE.fullmatch(words[0]):
            return cls(words[0], found["domain"], found["service"], words[1], roots)
        if found := _OPERATOR.fullmatch(words[0]):
            return cls(words[0], found["domain"], "", words[1], roots)
        raise ValueError(f"{source}: {words[0]!r} is neither spiffe://DOMAIN/service/NAME nor operator@DOMAIN")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenFile:
        """Raises OSError, or ValueError as parse does."""
        return cls.parse(Path(path).read_text(encoding="utf-8"), str(path))


def spiffe_id(trust_domain: str, service: str) -> str:
    """The identity of a service: its SVID's one URI SAN."""
    return f"spiffe://{trust_domain}/service/{service}"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The call metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def channel(target: str, roots_pem: str) -> grpc.Channel:
    """A TLS channel to the control plane at host:port that trusts only `roots_pem`."""
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots_pem.encode()), options=CHANNEL_OPTIONS)


def aio_channel(target: str, roots_pem: str) -> grpc.aio.Channel:
    """The same for asyncio."""
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots_pem.encode()), options=CHANNEL_OPTIONS)


def is_another_mesh(details: str | None) -> bool:
    """Whether an UNAVAILABLE with these details means: who answers has a certificate of another CA than the token
    file's. A certificate out of its time is a clock's fault."""
    return "CERTIFICATE_VERIFY_FAILED" in (details or "") and not re.search("expired|not yet valid", details or "")


def another_mesh(control_plane: str, token_file: str | os.PathLike[str]) -> str:
    """How that is said to the user, who gave both."""
    return f"{control_plane} is another control plane than the one that {os.fspath(token_file)} is of"
