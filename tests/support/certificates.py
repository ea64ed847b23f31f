"""Certificates for tests: a CA, leaves with a SPIFFE id, and bad ones. Made with cryptography, in
milliseconds.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate chain and its key, PEM."""

    chain: str
    key: str

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """NAME.pem and NAME.key (0600) in `directory`."""
        chain, key = directory / f"{name}.pem", directory / f"{name}.key"
        chain.write_text(self.chain)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.key)
        return chain, key


class Authority:
    """A CA of its own; two of them do not trust each other."""

    def __init__(self, name: str = "test CA", certificate_pem: str = "", key_pem: str = "") -> None:
        """A new CA, or (with both PEM texts) an existing one."""
        if key_pem:
            loaded = serialization.load_pem_private_key(key_pem.encode(), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            self._key = loaded
            self._certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._certificate = _sign(self._key, self._key, _name(name), _name(name), None, HOUR, ca=True)
        self.pem = _pem(self._certificate)

    def issue(
        self,
        uri: str | None = None,
        *,
        dns: str | None = None,
        lasts: dt.timedelta = HOUR,
        starts: dt.timedelta = -HOUR,
    ) -> Leaf:
        """A leaf valid from now + `starts` to now + `lasts`; a negative `lasts` makes an expired one."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        if uri is not None:
            names.append(x509.UniformResourceIdentifier(uri))
        if dns is not None:
            names.append(x509.DNSName(dns))
        issuer = self._certificate.subject
        leaf = _sign(key, self._key, _name("leaf"), issuer, names, lasts, starts=starts)
        return Leaf(_pem(leaf), _key_pem(key))

    def expired(self, uri: str) -> Leaf:
        """A leaf that ended ten minutes ago."""
        return self.issue(uri, lasts=-dt.timedelta(minutes=10), starts=-2 * HOUR)


def client_context(roots_pem: str, leaf: Leaf | None, directory: Path) -> ssl.SSLContext:
    """A client that trusts `roots_pem` (by chain, no host name) and shows `leaf`. Writes files to
    `directory`.
    """
    context = ssl.create_default_context(cadata=roots_pem)
    context.check_hostname = False
    if leaf is not None:
        context.load_cert_chain(*leaf.write(directory, "client"))
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _sign(
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    names: list[x509.GeneralName] | None,
    lasts: dt.timedelta,
    *,
    starts: dt.timedelta = -HOUR,
    ca: bool = False,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + lasts)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_id, critical=False)
    )
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = builder.add_extension(usage, critical=True)
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    no_encryption = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, no_encryption).decode()
