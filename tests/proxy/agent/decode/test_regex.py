"""What RE2 compiles is taken, and the rest refused in its words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.mesh import regex as mesh
from proxy.agent.decode.regex import refusal
from proxy.routing.matchers import regex


@pytest.mark.parametrize(
    "pattern",
    ["/items/[0-9]+", "", ".*", r"a{2,1000}", r"(?i)cart|CART", r"(?P<name>x)+?", r"\d\w\s\b", r"[\]a-z^-]", "(?:a)", "^a$", r"\x41", r"\.", "(?s:.)", r"\pL", "[[:alpha:]]", "[é-ü]"],
)  # fmt: skip
def test_what_re2_knows_is_taken(pattern: str) -> None:
    assert refusal(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "missing )"),
        ("*", "no argument for repetition operator: *"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("(?=a)", "invalid perl operator: (?="),
        ("(?<!a)b", "invalid perl operator: (?<"),
        ("(?>a)", "invalid perl operator: (?>"),
        ("a++", "bad repetition operator: ++"),
        ("a{1001}", "invalid repetition size: {1001}"),
        (r"a\Z", r"invalid escape sequence: \Z"),
        ("(?x) a", "invalid perl operator: (?x"),
        ("a" * 4097, "longer than 4096"),
    ],
)
def test_others_are_refused_with_the_reason(pattern: str, words: str) -> None:
    assert words in (refusal(pattern) or "")


@settings(deadline=None)
@given(st.text(alphabet=r"ab01\()[]{}?*+|^$.,:=!<>-PZuxiLné", max_size=12))
def test_a_pattern_is_taken_or_refused_and_the_control_plane_says_the_same(pattern: str) -> None:
    assert (refusal(pattern) is None) == (mesh.refusal(pattern) is None)
    if refusal(pattern) is None:
        regex(pattern)(b"/a")
