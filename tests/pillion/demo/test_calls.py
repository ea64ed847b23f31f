"""The sample services read the identity that their sidecar reports."""

from __future__ import annotations

import pytest

from pillion.demo.calls import peer_uri

BY = "By=spiffe://pillion.local/service/cart"
WEB = "spiffe://pillion.local/service/web"


@pytest.mark.parametrize(
    ("header", "uri"),
    [
        (f"{BY};Hash=ab12;URI={WEB}", WEB),
        (f'{BY};Hash=ab12;Subject="O=A, B;CN=x\\"y";URI={WEB}', WEB),
        (f"{BY};Hash=1;URI=spiffe://other/service/x,{BY};Hash=2;URI={WEB}", WEB),  # the nearest is the last
        (f"{BY};URI={WEB},{BY};Hash=2", None),  # the nearest says nothing
        (f"{BY};Hash=ab12", None),
        ("", None),
        ('Subject="never closed', None),
    ],
)
def test_the_peer_is_the_uri_of_the_nearest_element(header: str, uri: str | None) -> None:
    assert peer_uri(header) == uri
