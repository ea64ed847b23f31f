"""The CA: what it signs, what it refuses, and what it does with its files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from control_plane.ca import CertificateAuthority, ServerCertificate
from control_plane.errors import RefusedError, RequestError, StartError

NOW = 1_800_000_000.0


def csr(*names: x509.GeneralName, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    request = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def uri(service: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"spiffe://pillion.local/service/{service}")


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path, "pillion.local", clock=lambda: NOW)


def test_an_svid_says_who_for_how_long_and_nothing_else(ca: CertificateAuthority) -> None:
    signed = ca.sign(csr(uri("cart")), "cart")
    leaf = x509.load_pem_x509_certificate(signed.chain_pem.encode())
    root = x509.load_pem_x509_certificate(ca.bundle_pem.encode())
    leaf.verify_directly_issued_by(root)
    extension = leaf.extensions.get_extension_for_class
    assert list(extension(x509.SubjectAlternativeName).value) == [uri("cart")]
    assert extension(x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    usage = extension(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert set(extension(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extension(x509.AuthorityKeyIdentifier).value.key_identifier == identifier.digest
    assert leaf.not_valid_before_utc.timestamp() == NOW - 60
    assert leaf.not_valid_after_utc.timestamp() == signed.expires == NOW + 24 * 3600
    assert ca.sign(csr(uri("cart")), "cart").chain_pem != signed.chain_pem


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        ([uri("payments")], RefusedError, "service/payments.*this token is for.*service/cart"),
        ([x509.UniformResourceIdentifier("spiffe://elsewhere/service/cart")], RefusedError, "elsewhere"),
        ([uri("cart"), uri("payments")], RequestError, "exactly one SAN.*it has 2"),
        ([uri("cart"), x509.DNSName("cart")], RequestError, "exactly one SAN"),
        ([x509.DNSName("cart")], RequestError, "exactly one SAN"),
        ([], RequestError, "it has 0"),
    ],
)
def test_a_csr_for_anything_but_its_own_name_is_refused(
    ca: CertificateAuthority, names: list[x509.GeneralName], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ca.sign(csr(*names), "cart")


@pytest.mark.parametrize(
    "value", [b"\x05\x00", b"\x30\x04\xa3\x02\x05\x00", b"\x30\x04\xa5\x02\x05\x00"], ids=["null", "x400", "ediparty"]
)
def test_names_that_cannot_be_read_are_the_csrs_fault(ca: CertificateAuthority, value: bytes) -> None:
    san = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, value)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=True)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    with pytest.raises(RequestError, match="cannot be read"):
        ca.sign(request.public_bytes(serialization.Encoding.PEM).decode(), "cart")


def test_what_else_a_csr_asks_for_is_not_given(ca: CertificateAuthority) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([uri("cart")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    signed = ca.sign(request.public_bytes(serialization.Encoding.PEM).decode(), "cart")
    leaf = x509.load_pem_x509_certificate(signed.chain_pem.encode())
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_csr_that_is_none_is_refused(ca: CertificateAuthority) -> None:
    with pytest.raises(RequestError, match="not a PKCS #10"):
        ca.sign("hello", "cart")
    with pytest.raises(RequestError, match="larger than"):
        ca.sign("x" * 20_000, "cart")
    with pytest.raises(RequestError, match="P-256"):
        ca.sign(csr(uri("cart"), key=ec.generate_private_key(ec.SECP384R1())), "cart")
    with pytest.raises(RequestError, match="P-256"):
        ca.sign(csr(uri("cart"), key=rsa.generate_private_key(65537, 2048)), "cart")
    # The signature is the last thing in a CSR: flip a bit of it.
    good = x509.load_pem_x509_csr(csr(uri("cart")).encode()).public_bytes(serialization.Encoding.DER)
    bad = x509.load_der_x509_csr(good[:-1] + bytes([good[-1] ^ 1])).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RequestError, match="signature"):
        ca.sign(bad.decode(), "cart")


def test_the_root_is_made_once_and_kept(tmp_path: Path) -> None:
    first = CertificateAuthority.open(tmp_path, "pillion.local")
    key = tmp_path / "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    content = key.read_bytes()
    assert CertificateAuthority.open(tmp_path, "pillion.local").bundle_pem == first.bundle_pem
    assert key.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem"]


def test_killed_between_key_and_certificate_it_goes_on_with_the_key(tmp_path: Path) -> None:
    CertificateAuthority.open(tmp_path, "pillion.local")
    content = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.pem").unlink()
    ca = CertificateAuthority.open(tmp_path, "pillion.local")
    assert (tmp_path / "ca.key").read_bytes() == content
    assert ca.sign(csr(uri("cart")), "cart").chain_pem


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    CertificateAuthority.open(tmp_path, "pillion.local")
    with pytest.raises(StartError, match=r"belongs to the trust domain pillion\.local"):
        CertificateAuthority.open(tmp_path, "other.example")
    key = tmp_path / "ca.key"
    key.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        CertificateAuthority.open(tmp_path, "pillion.local")
    key.chmod(0o600)
    content = key.read_bytes()
    key.write_text("rubbish")
    with pytest.raises(StartError, match=r"ca\.key: not an unencrypted PEM") as raised:
        CertificateAuthority.open(tmp_path, "pillion.local")
    assert "rubbish" not in str(raised.value)
    key.unlink()
    with pytest.raises(StartError, match=r"ca\.key: missing"):
        CertificateAuthority.open(tmp_path, "pillion.local")
    other = tmp_path / "other"
    other.mkdir()
    CertificateAuthority.open(other, "pillion.local")
    key.write_bytes((other / "ca.key").read_bytes())
    key.chmod(0o600)
    assert content != key.read_bytes()
    with pytest.raises(StartError, match="does not belong"):
        CertificateAuthority.open(tmp_path, "pillion.local")


def test_the_control_planes_own_certificate_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    now = NOW
    ca = CertificateAuthority.open(tmp_path, "pillion.local", clock=lambda: now)
    own = ServerCertificate(ca, 1000, clock=lambda: now)
    first = own.fresh()
    assert first is not None
    leaf = x509.load_pem_x509_certificate(first[1])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "pillion-control-plane" in names.get_values_for_type(x509.DNSName)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == []
    now += 499
    assert own.fresh() is None
    now += 2
    second = own.fresh()
    assert second is not None
    assert second[1] != first[1]
