"""TLS of a worker: contexts from the snapshot and the keys that came through memfds; why a handshake failed."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from proxy.config.cluster import Cluster
from proxy.config.model import DownstreamTls, TrustBundle, UpstreamTls, Validation
from proxy.routing.matchers import string
from proxy.worker.peer import Peer, PeerError

BIO_BYTES: Final = 8 * (16 * 1024 + 64)
"""Bytes that aiofastnet buffers each way of a connection that has carried much: eight records. Its own 257 KiB would be
three times the memory, and gain nothing on large bodies."""
# TLS 1.2 suites: forward secrecy and AEAD only (RFC 9325 §4.2); 1.3's are all good.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Keys:
    """The memfds that hold chain and private key by certificate name. Only OpenSSL reads them."""

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: dict[str, tuple[str, int]] = {}

    def put(self, name: str, key_id: str, fd: int) -> None:
        """Take over the descriptor; an older one of that name is closed."""
        old = self._fds.pop(name, None)
        if old is not None:
            os.close(old[1])
        self._fds[name] = (key_id, fd)

    def keep(self, names: Iterable[str]) -> None:
        """Close the descriptors of certificates that are no more."""
        for name in self._fds.keys() - set(names):
            os.close(self._fds.pop(name)[1])

    def load(self, context: ssl.SSLContext, name: str, key_id: str) -> None:
        """Load chain and key into a context. Raises LookupError if they have not come, ssl.SSLError if they are bad."""
        known = self._fds.get(name)
        if known is None or known[0] != key_id:
            raise LookupError(f"the key of certificate {name!r} has not arrived")
        # Python's ssl reads keys from files only; this one has no name on any disk.
        context.load_cert_chain(f"/proc/self/fd/{known[1]}")


class Context(ssl.SSLContext):
    """A context that tells how it verifies by `requires` (a certificate must be shown) and `verifies` (one that is
    shown must be good), and says CERT_NONE to whoever reads `verify_mode`.

    aiofastnet reads it after every handshake, and for any other answer decodes the peer's certificate through a
    temporary file: a quarter of what a handshake costs. What OpenSSL does is not touched by that; worker.peer decodes.
    """

    requires: bool = False
    verifies: bool = False

    @property
    def verify_mode(self) -> ssl.VerifyMode:  # type: ignore[override]
        return ssl.CERT_NONE

    def verify(self, mode: ssl.VerifyMode) -> None:
        """Set what OpenSSL does about the peer's certificate."""
        ssl.SSLContext.verify_mode.__set__(self, mode)  # type: ignore[attr-defined]
        self.verifies = mode != ssl.CERT_NONE
        self.requires = mode == ssl.CERT_REQUIRED


def verifier(validation: Validation | None) -> Callable[[Peer], None]:
    """A check of the peer's names; it raises PeerError (CertificateValidationContext.match_typed_subject_alt_names)."""
    if validation is None or not validation.san_matchers:
        return lambda peer: None
    matchers = [(matcher.san_type, string(matcher.matcher)) for matcher in validation.san_matchers]
    spiffe = any(kind == "URI" for kind, _ in matchers)

    def verify(peer: Peer) -> None:
        if spiffe and len(peer.uri) != 1:  # SPIFFE X.509-SVID §2: exactly one URI SAN
            raise PeerError("bad_san", f"certificate with {len(peer.uri)} URI names instead of one")
        for kind, matches in matchers:
            if any(matches(name.encode()) for name in (peer.uri if kind == "URI" else peer.dns)):
                return
        raise PeerError(
            "bad_san", f"certificate of {', '.join((*peer.uri, *peer.dns)) or 'no name'} is not accepted here"
        )

    return verify


def _context(side: ssl._SSLMethod, alpn: tuple[str, ...]) -> Context:
    context = Context(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def server_context(
    tls: DownstreamTls, key_ids: Mapping[str, str], bundles: Mapping[str, TrustBundle], keys: Keys
) -> Context:
    """The context of a listener. Raises LookupError or ssl.SSLError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls.alpn_protocols)
    keys.load(context, tls.certificate, key_ids[tls.certificate])
    if tls.validation is not None:
        context.load_verify_locations(cadata=bundles[tls.validation.trusted_ca].pem)
        context.verify(ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL)
        # Every connection shows its certificate anew. (TLS 1.2 resumes all the same: see Peer.)
        context.num_tickets = 0
    elif tls.require_client_certificate:
        raise LookupError("require_client_certificate without a validation context")
    return context


def client_context(
    tls: UpstreamTls, key_ids: Mapping[str, str], bundles: Mapping[str, TrustBundle], keys: Keys
) -> Context:
    """The context of a cluster. Names are checked by `verifier`, not by OpenSSL. Raises LookupError or ssl.SSLError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls.alpn_protocols)
    context.check_hostname = False
    if tls.certificate is not None:
        keys.load(context, tls.certificate, key_ids[tls.certificate])
    if tls.validation is not None:
        context.load_verify_locations(cadata=bundles[tls.validation.trusted_ca].pem)
        context.verify(ssl.CERT_REQUIRED)
    else:
        context.verify(ssl.CERT_NONE)  # Envoy: no validation context, no verification
    return context


def by_protocol(cluster: Cluster) -> tuple[UpstreamTls | None, UpstreamTls | None]:
    """What a cluster's connections of HTTP/1.1 (or raw bytes) and of HTTP/2 are secured with: None for what it does not
    use. Each offers what will be spoken, and nothing else (RFC 7301)."""
    if cluster.tls is None:
        return None, None
    others = tuple(name for name in cluster.tls.alpn_protocols if name != "h2")
    http1 = cluster.tls if others == cluster.tls.alpn_protocols else replace(cluster.tls, alpn_protocols=others)
    http2 = replace(cluster.tls, alpn_protocols=("h2",)) if cluster.protocol != "HTTP1" else None
    return http1, http2


# X509_V_ERR_* of OpenSSL's x509_vfy.h
_EXPIRED, _NOT_YET_VALID = 10, 9


def reason(error: BaseException) -> str:
    """The label of downstream_tls_error_total and upstream_tls_error_total for a failed handshake."""
    if isinstance(error, PeerError):
        return error.reason
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return {_EXPIRED: "expired", _NOT_YET_VALID: "not_yet_valid"}.get(error.verify_code, "unknown_ca")
    text = f"{getattr(error, 'reason', '') or ''} {error}".upper()
    for needle, label in _REASONS:
        if needle in text:
            return label
    return "other"


def refuses_us(error: BaseException | None) -> bool:
    """Whether this is the peer's alert that it does not accept our certificate. In TLS 1.3 it comes when the client's
    handshake is already over (RFC 8446 §4.4.2.4, §6.2); a server that sends it has read no request."""
    if not isinstance(error, ssl.SSLError):
        return False
    text = f"{getattr(error, 'reason', '') or ''} {error}".upper().replace(" ", "_")
    return "ALERT" in text and any(what in text for what in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED"))


_REASONS = (
    ("HTTP_REQUEST", "plaintext"),
    ("WRONG_VERSION_NUMBER", "plaintext"),
    ("HTTPS_PROXY_REQUEST", "plaintext"),
    ("UNKNOWN_PROTOCOL", "plaintext"),
    ("PACKET_LENGTH_TOO_LONG", "plaintext"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "no_certificate"),
    ("CERTIFICATE_REQUIRED", "no_certificate"),
    ("CERTIFICATE_EXPIRED", "expired"),
    ("UNKNOWN_CA", "unknown_ca"),
    ("CERTIFICATE VERIFY FAILED: CERTIFICATE HAS EXPIRED", "expired"),
    ("CERTIFICATE_VERIFY_FAILED", "unknown_ca"),
)
