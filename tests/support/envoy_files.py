"""For a real Envoy without Pillion's agent: certificates in files instead of by SDS."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message


def files_for_sds(config: Any, context: Message, files: tuple[Path, Path, Path]) -> None:
    """Have a packed TLS context use (chain, key, roots) where it names the secrets of the mesh."""
    certificate, key, roots = files
    config.Unpack(context)
    common = context.common_tls_context
    (secret,) = common.tls_certificate_sds_secret_configs
    assert secret.name == "default"
    del common.tls_certificate_sds_secret_configs[:]
    common.tls_certificates.add(certificate_chain={"filename": str(certificate)}, private_key={"filename": str(key)})
    combined = common.combined_validation_context
    assert combined.validation_context_sds_secret_config.name == "ROOTCA"
    validation = combined.default_validation_context
    validation.trusted_ca.filename = str(roots)
    common.validation_context.CopyFrom(validation)
    config.Pack(context)


def write_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """A self-signed (chain, key, roots) in `directory`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private, chain
