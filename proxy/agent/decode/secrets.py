"""Certificates, bundles and keys that a bootstrap names: read once, checked as a worker would load them."""

from __future__ import annotations

import hashlib
import os
import re
import ssl

from proxy.config.model import TlsCertificate, TrustBundle

MAX_FILE = 1024 * 1024
"""Bytes; a longer file is not a certificate, a key or a response body."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s+.+?-----END CERTIFICATE-----", re.DOTALL)


class PrivateKey:
    """A private key in PEM that does not show itself: not in repr, str, pickles or comparisons."""

    __slots__ = ("pem",)

    def __init__(self, pem: bytes) -> None:
        self.pem = pem

    def __repr__(self) -> str:
        return "PrivateKey(<hidden>)"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled: it travels through a memfd")


class SecretError(ValueError):
    """What is wrong with a certificate, a key or a bundle; `part` says which: "chain", "key" or "bundle"."""

    def __init__(self, part: str, message: str) -> None:
        self.part = part
        super().__init__(message)


class Secrets:
    """The secrets of one bootstrap by name; the same file named twice is held once."""

    __slots__ = ("bundles", "certificates", "keys")

    def __init__(self) -> None:
        self.certificates: dict[str, TlsCertificate] = {}
        self.bundles: dict[str, TrustBundle] = {}
        self.keys: dict[str, PrivateKey] = {}

    def add_certificate(self, name: str, chain: bytes, key: bytes) -> str:
        """Check the pair and keep it; returns its name. Errors: SecretError."""
        found = _certificates("chain", chain)
        if name not in self.certificates or self.keys[name].pem != key:
            check_pair(chain, key)
        # The chain holds the public key, so its digest changes with the key, and says nothing about it.
        digest = hashlib.sha256(found.encode()).hexdigest()[:32]
        self.certificates[name] = TlsCertificate(name, found, digest, uri_san(found))
        self.keys[name] = PrivateKey(key)
        return name

    def add_bundle(self, name: str, pem: bytes) -> str:
        """Check a bundle of CA certificates and keep it; returns its name. Errors: SecretError."""
        if name not in self.bundles:
            found = _certificates("bundle", pem)
            try:
                ssl.create_default_context(cadata=found)
            except ssl.SSLError as error:
                raise SecretError("bundle", f"is not a list of certificates in PEM ({_reason(error)})") from None
            self.bundles[name] = TrustBundle(name, found)
        return name


def uri_san(chain_pem: str) -> str:
    """The first URI among the leaf's names, "" without one. Errors: SecretError."""
    from cryptography import x509  # 10 MB that a sidecar without TLS never needs

    try:
        leaf = x509.load_pem_x509_certificate(chain_pem.encode())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    except ValueError as error:
        raise SecretError("chain", f"holds a certificate that cannot be read ({error})") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else ""


def read_file(path: str) -> bytes:
    """The content of a file of at most MAX_FILE bytes. Errors: OSError, whose text names the file."""
    with open(path, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(0, f"it is longer than {MAX_FILE} bytes", path)
    return data


def check_pair(chain: bytes, key: bytes) -> None:
    """Load certificate and key as a worker will: from a memfd, never the disk. Errors: SecretError."""
    if b"ENCRYPTED" in key:
        raise SecretError("key", "is encrypted; give the key without a passphrase (openssl pkey -in KEY)")
    if b"PRIVATE KEY-----" not in key:
        raise SecretError("key", "holds no private key in PEM")
    memfd = os.memfd_create("pillion-check", os.MFD_CLOEXEC)
    try:
        with open(memfd, "wb", closefd=False) as file:
            file.write(chain + b"\n" + key)
        # The password callback keeps OpenSSL from ever asking the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"/proc/self/fd/{memfd}", password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SecretError("key", "does not belong to the certificate (key values mismatch)") from None
        raise SecretError("key", f"cannot be loaded with its certificate ({_reason(error)})") from None
    finally:
        os.close(memfd)


def _certificates(part: str, pem: bytes) -> str:
    """Only the certificates of a PEM file: comments and a key that stands in the same file stay behind."""
    found = _CERTIFICATE.findall(pem.decode("ascii", "replace"))
    if not found:
        raise SecretError(part, "holds no certificate in PEM")
    return "\n".join(found) + "\n"


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable PEM").lower().replace("_", " ")
