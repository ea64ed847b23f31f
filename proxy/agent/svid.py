"""A sidecar's identity: an ECDSA P-256 key made in memory, and the X.509-SVID that the control plane signs for it.

https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.agent.decode.secrets import uri_san
from proxy.config.model import TlsCertificate, TrustBundle

CERTIFICATE_NAME = "default"
"""The SDS name of the sidecar's own certificate."""
BUNDLE_NAME = "ROOTCA"
"""The SDS name of the mesh's trust bundle."""


@dataclass(frozen=True, slots=True)
class Svid:
    """Everything that one Sign brought, with the key it was for. Times are seconds since the epoch."""

    chain_pem: str
    key_pem: str = field(repr=False)
    bundle_pem: str
    session_token: str = field(repr=False)
    not_before: float
    expires: float

    def certificate(self) -> TlsCertificate:
        """The chain as the snapshot names it. The key id is a digest of the chain, which a new key changes."""
        digest = hashlib.sha256(self.chain_pem.encode()).hexdigest()[:32]
        return TlsCertificate(CERTIFICATE_NAME, self.chain_pem, digest, uri_san(self.chain_pem))

    def bundle(self) -> TrustBundle:
        """The roots that peers are checked against."""
        return TrustBundle(BUNDLE_NAME, self.bundle_pem)

    def pem(self) -> bytes:
        """Chain and key, as a worker loads them."""
        return (self.chain_pem.rstrip("\n") + "\n" + self.key_pem).encode()


@dataclass(frozen=True, slots=True)
class Request:
    """A new key and the CSR for it."""

    csr_pem: str
    key_pem: str = field(repr=False)


def new_request(spiffe_id: str) -> Request:
    """Make a key, and a PKCS #10 request with the SPIFFE id as its one SAN."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Request(csr.public_bytes(serialization.Encoding.PEM).decode(), key_pem.decode())


def complete(request: Request, spiffe_id: str, chain_pem: str, bundle_pem: str, session_token: str) -> Svid:
    """The SVID from a request and its answer. Raises ValueError if the answer does not fit the request."""
    chain = x509.load_pem_x509_certificates(chain_pem.encode())
    x509.load_pem_x509_certificates(bundle_pem.encode())
    key = serialization.load_pem_private_key(request.key_pem.encode(), None)
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        raise ValueError("the control plane signed another key")
    try:
        names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        names = []
    if names != [x509.UniformResourceIdentifier(spiffe_id)]:
        raise ValueError(f"the control plane signed another name than {spiffe_id}")
    return Svid(
        chain_pem=chain_pem,
        key_pem=request.key_pem,
        bundle_pem=bundle_pem,
        session_token=session_token,
        not_before=leaf.not_valid_before_utc.timestamp(),
        expires=leaf.not_valid_after_utc.timestamp(),
    )


def renewal_time(svid: Svid, jitter: float) -> float:
    """When to renew (epoch seconds): at half life, moved by up to a tenth of it; `jitter` is in [-1, 1]."""
    life = svid.expires - svid.not_before
    return svid.not_before + life / 2 + jitter * life / 20
