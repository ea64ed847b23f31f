"""GEP-2257."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.mesh import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("250ms", 0.25), ("2s", 2), ("1m30s", 90), ("1h", 3600), ("1s1500ms", 2.5), ("99999h", 359996400)],
)
def test_good(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "1.5s", "-1s", "100000s", "1s1s1s1s1s", "1 s", "1d", "1S", "1s\n", "٣s"])
def test_bad(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write 250ms"):
        parse_duration(text)


@given(st.integers(0, 99_999 * 3_600_000))
def test_formatted_is_parsed_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000
