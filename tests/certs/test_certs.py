"""The dev CA: what it writes is what a listener can use, and no more than the owner can read."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from certs import Authority
from certs.__main__ import main


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_writes_a_ca_and_one_svid_a_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "dev"), "--service", "storefront", "cart", "--days", "3"]) == 0
    cart, ca = read(tmp_path / "dev/cart.pem"), read(tmp_path / "dev/ca.pem")
    assert uris(cart) == ["spiffe://pillion.local/service/cart"]
    cart.verify_directly_issued_by(ca)
    assert 2 <= (cart.not_valid_after_utc - datetime.now(UTC)).days < 3
    for name in ("ca", "cart", "storefront"):
        assert stat.S_IMODE((tmp_path / f"dev/{name}.key").stat().st_mode) == 0o600
    assert "PRIVATE" not in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "dev").iterdir()) == sorted(
        f"{name}.{kind}" for name in ("ca", "cart", "storefront") for kind in ("key", "pem")
    )


def test_a_second_run_keeps_the_ca_and_renews_the_service(tmp_path: Path) -> None:
    main([str(tmp_path), "--service", "cart"])
    ca, cart = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "cart.pem").read_bytes()
    main([str(tmp_path), "--service", "cart"])
    assert (tmp_path / "ca.pem").read_bytes() == ca
    assert (tmp_path / "cart.pem").read_bytes() != cart


def test_new_ca_and_expired_make_what_a_listener_must_refuse(tmp_path: Path) -> None:
    main([str(tmp_path), "--service", "cart"])
    old = read(tmp_path / "ca.pem")
    assert main([str(tmp_path), "--service", "cart", "--new-ca", "--expired", "--trust-domain", "other"]) == 0
    cart = read(tmp_path / "cart.pem")
    cart.verify_directly_issued_by(read(tmp_path / "ca.pem"))
    with pytest.raises(InvalidSignature):
        cart.verify_directly_issued_by(old)
    assert cart.not_valid_after_utc < datetime.now(UTC)
    assert uris(cart) == ["spiffe://other/service/cart"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--service", "Cart"],
        ["--service", "ca"],
        ["--service", "../x"],
        ["--service", "a", "--days", "0"],
        [],
    ],
)
def test_refuses_bad_arguments(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file"), "--service", "cart"]) == 2
    assert capsys.readouterr().err == f"certs: {tmp_path / 'file'}: File exists\n"


def test_a_ca_key_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.key").write_text("nothing")
    assert main([str(tmp_path), "--service", "cart"]) == 2
    assert capsys.readouterr().err.startswith("certs: ")


def test_the_usage_is_an_order_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    usage = " ".join(capsys.readouterr().out.split())
    assert "python -m certs DIR --service NAME" in usage


def test_an_identity_does_not_show_its_key() -> None:
    identity = Authority.create().issue("cart")
    assert "PRIVATE" not in repr(identity)
