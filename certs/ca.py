"""A CA in memory, what it signs, and how both are kept in a directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "pillion.local"
_BACKDATE = timedelta(minutes=5)  # clocks of the machines that try this may differ a little


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A certificate (PEM) and its private key (PEM, PKCS #8); repr shows neither."""

    chain: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.pem (0644) and NAME.key (0600) into a directory; returns both paths. Errors: OSError."""
        chain, key = directory / f"{name}.pem", directory / f"{name}.key"
        _write(key, self.key, 0o600)
        _write(chain, self.chain, 0o644)
        return chain, key


class Authority:
    """A self-signed root that signs SVIDs of one trust domain."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, lifetime: timedelta = timedelta(days=365), name: str = "Pillion dev CA") -> Authority:
        """A new root with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = key.public_key()
        certificate = (
            _builder(subject, subject, public, -_BACKDATE, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """The root that `write` left in a directory. Errors: OSError; ValueError when it is not one."""
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{directory / 'ca.key'} is not an EC key")
        return cls(x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes()), key)

    @property
    def pem(self) -> bytes:
        """The root's certificate: what a trusted_ca file holds."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: Path) -> None:
        """Write ca.pem (0644) and ca.key (0600) into a directory. Errors: OSError."""
        Identity(self.pem, _key_pem(self._key)).write(directory, "ca")

    def issue(
        self,
        service: str,
        *,
        trust_domain: str = TRUST_DOMAIN,
        starts: timedelta = -_BACKDATE,
        lifetime: timedelta = timedelta(days=30),
    ) -> Identity:
        """Sign an SVID for a service. `starts` and `lifetime` count from now; both negative: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        uri = f"spiffe://{trust_domain}/service/{service}"
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_subject(service), self.certificate.subject, key.public_key(), starts, lifetime)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(authority_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _subject(service: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    starts: timedelta,
    ends: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file in one step; at no time can anyone else read a key."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(new, path)
