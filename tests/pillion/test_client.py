"""Token files: what is written is what is read, and the token never shows."""

from __future__ import annotations

import pytest

from pillion.client import TokenFile, is_another_mesh

PEM = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"


def test_a_token_file_survives_being_written() -> None:
    join = TokenFile("spiffe://a.b/service/cart", "a.b", "cart", "secret", PEM)
    operator = TokenFile("operator@a.b", "a.b", "", "secret", PEM)
    for file in (join, operator):
        assert TokenFile.parse(file.render()) == file
        assert "secret" not in repr(file)


@pytest.mark.parametrize("text", ["", "one", "operator@a.b secret\n", f"a b c\n{PEM}", f"someone secret\n{PEM}"])
def test_what_is_no_token_file_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"f\.token: ") as raised:
        TokenFile.parse(text, "f.token")
    assert "secret" not in str(raised.value)


def test_a_clock_that_is_wrong_is_not_another_mesh() -> None:
    failed = "SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: "
    assert is_another_mesh(failed + "unable to get local issuer certificate")
    assert is_another_mesh(failed + "self-signed certificate in certificate chain")
    assert not is_another_mesh(failed + "certificate is not yet valid")
    assert not is_another_mesh(failed + "certificate has expired")
    assert not is_another_mesh("Connection refused")
    assert not is_another_mesh(None)
