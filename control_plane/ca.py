"""The mesh's certificate authority: one ECDSA P-256 root that signs SVIDs and the control plane's own
certificate.

An SVID follows the SPIFFE X.509-SVID standard: one URI SAN and nothing else that names the holder, CA:FALSE,
digitalSignature, server and client authentication. The root's private key is in ca.key (0600), made on the
first start and never overwritten; leaf keys never come here.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.errors import RefusedError, RequestError, StartError
from control_plane.files import read_private, write_new
from pillion.client import SERVER_NAME, spiffe_id

log = logging.getLogger("control-plane")

SVID_LIFETIME = 24 * 3600.0  # seconds
SERVER_LIFETIME = 7 * 24 * 3600.0
ROOT_LIFETIME = 10 * 365 * 24 * 3600.0
BACKDATE = 60.0  # for clocks that are a little behind
MAX_CSR = 16 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate that was issued; `expires` is Unix seconds."""

    chain_pem: str
    expires: float


class CertificateAuthority:
    """Load with open(); `svid_lifetime` in seconds, `clock` gives Unix seconds."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        root: x509.Certificate,
        trust_domain: str,
        svid_lifetime: float = SVID_LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._root = root
        self._clock = clock
        self._lifetime = svid_lifetime
        self.trust_domain = trust_domain
        self.bundle_pem = root.public_bytes(serialization.Encoding.PEM).decode()

    def __repr__(self) -> str:
        return f"CertificateAuthority({self.trust_domain})"

    @classmethod
    def open(
        cls,
        directory: Path,
        trust_domain: str,
        svid_lifetime: float = SVID_LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> CertificateAuthority:
        """The CA of a data directory, made if the directory has none. Raises StartError naming the file."""
        key_file, root_file = directory / "ca.key", directory / "ca.pem"
        pem = read_private(key_file)
        if pem is None:
            if root_file.exists():
                raise StartError(f"{key_file}: missing; restore it, or remove {root_file} to begin a new mesh")
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_new(key_file, pem)
            log.info("made a new root key file=%s", key_file)
        try:
            loaded = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise StartError(f"{key_file}: not an unencrypted PEM private key; restore it from a backup") from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
            raise StartError(f"{key_file}: not an ECDSA P-256 key")
        if not root_file.exists():  # first start, or one that was killed between the two files
            write_new(root_file, _make_root(loaded, trust_domain, clock()).public_bytes(serialization.Encoding.PEM))
        try:
            root = x509.load_pem_x509_certificate(root_file.read_bytes())
        except (OSError, ValueError):
            raise StartError(f"{root_file}: not a PEM certificate; restore it from a backup") from None
        if root.public_key() != loaded.public_key():
            raise StartError(f"{root_file}: does not belong to {key_file}; restore both from one backup")
        if (owner := _uris(root)) != [f"spiffe://{trust_domain}"]:
            domain = owner[0].removeprefix("spiffe://") if owner else "?"
            raise StartError(
                f"{directory}: belongs to the trust domain {domain}; start with --trust-domain {domain}, "
                "or give another --data-dir"
            )
        if root.not_valid_after_utc.timestamp() <= clock():
            raise StartError(f"{root_file}: expired at {root.not_valid_after_utc:%Y-%m-%d}; begin a new mesh")
        return cls(loaded, root, trust_domain, svid_lifetime, clock)

    def sign(self, csr_pem: str, service: str) -> Signed:
        """Sign the CSR of `service`, whose right was checked by the caller.

        Raises RequestError for a CSR that nobody could have signed, RefusedError for another service's name.
        """
        csr = _parse_csr(csr_pem)
        expected = spiffe_id(self.trust_domain, service)
        try:
            names = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            names = []
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise RequestError(f"csr_pem: its extensions cannot be read: {error}") from None
        uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
        if len(names) != 1 or len(uris) != 1:
            raise RequestError(f"csr_pem: needs exactly one SAN, the URI {expected}; it has {len(names)}")
        if uris[0] != expected:
            raise RefusedError(f"csr_pem: asks for {uris[0][:300]!r}, but this token is for {expected}")
        public = csr.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return self._issue(public, [x509.UniformResourceIdentifier(expected)], self._lifetime)

    def server_certificate(self, lifetime: float = SERVER_LIFETIME) -> tuple[bytes, Signed]:
        """A fresh key (PEM, for memory only) and certificate for the control plane's own port."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME), x509.DNSName("localhost")]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem, self._issue(key.public_key(), names, lifetime)

    def _issue(self, public: ec.EllipticCurvePublicKey, names: list[x509.GeneralName], lifetime: float) -> Signed:
        now = self._clock()
        # No certificate outlives its issuer.
        end = min(int(now + lifetime), int(self._root.not_valid_after_utc.timestamp()))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Pillion")]))
            .issuer_name(self._root.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_utc(now - BACKDATE))
            .not_valid_after(_utc(end))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Signed(certificate.public_bytes(serialization.Encoding.PEM).decode(), float(end))


class ServerCertificate:
    """The control plane's certificate, renewed at half its life; asked at each handshake, from grpc's
    threads.
    """

    def __init__(self, ca: CertificateAuthority, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._ca = ca
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._renew_at = 0.0

    def fresh(self) -> tuple[bytes, bytes] | None:
        """(key PEM, chain PEM) if it is time for a new one, else None: keep the one that was given before."""
        with self._lock:
            now = self._clock()
            if now < self._renew_at:
                return None
            key, signed = self._ca.server_certificate(self._lifetime)
            self._renew_at = now + (signed.expires - now) / 2
            return key, signed.chain_pem.encode()


def _parse_csr(pem: str) -> x509.CertificateSigningRequest:
    if len(pem) > MAX_CSR:
        raise RequestError(f"csr_pem: larger than {MAX_CSR} bytes")
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        key = csr.public_key()
        valid = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise RequestError("csr_pem: not a PKCS #10 request in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError("csr_pem: the key must be ECDSA P-256")
    if not valid:
        raise RequestError("csr_pem: its signature does not match its key")
    return csr


def _make_root(key: ec.EllipticCurvePrivateKey, trust_domain: str, now: float) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pillion mesh root")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now - BACKDATE))
        .not_valid_after(_utc(now + ROOT_LIFETIME))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
            critical=False,
        )
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
