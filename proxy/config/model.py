"""The words that several resources share: addresses, string matchers, TLS contexts and secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """envoy.config.core.v3.SocketAddress, TCP only. An empty host never occurs; port is 0..65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StringMatcher:
    """envoy.type.matcher.v3.StringMatcher. `value` of kind safe_regex is a full match, as in Envoy."""

    kind: Literal["exact", "prefix", "suffix", "contains", "safe_regex"]
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class SanMatcher:
    """envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher (san_type URI or DNS)."""

    san_type: Literal["URI", "DNS"]
    matcher: StringMatcher


@dataclass(frozen=True, slots=True)
class Validation:
    """CertificateValidationContext: which peer certificates are accepted.

    `trusted_ca` names a TrustBundle of the snapshot. Without SAN matchers any name of that CA is accepted.
    """

    trusted_ca: str
    san_matchers: tuple[SanMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class DownstreamTls:
    """DownstreamTlsContext. `certificate` names a TlsCertificate of the snapshot."""

    certificate: str
    validation: Validation | None = None
    require_client_certificate: bool = False
    alpn_protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """UpstreamTlsContext. `certificate` names a TlsCertificate, or is None for one-sided TLS."""

    certificate: str | None = None
    validation: Validation | None = None
    sni: str = ""
    alpn_protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """A certificate chain by name. Its private key never enters a snapshot: it travels to the worker through a
    memfd, announced by `key_id` (changes whenever chain or key change), so that the worker can await it."""

    name: str
    chain_pem: str
    key_id: str
    # The leaf's URI SAN, "" without one: what x-forwarded-client-cert says as By.
    uri_san: str = ""


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The CA certificates (PEM, concatenated) that a Validation refers to by name."""

    name: str
    pem: str
