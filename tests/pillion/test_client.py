"""Token files: what is written is what is read, and the token never shows."""

from __future__ import annotations

import pytest

from pillion.client import TokenFile

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
