"""Patterns that mean the same in RE2 and in Python."""

from __future__ import annotations

import pytest

from control_plane.mesh.regex import refusal


@pytest.mark.parametrize(
    "pattern", ["/[a-z]+/x", r"\d{1,1000}", "(?i:a)b", "(?P<n>x)", "[*+]+", r"\\1", r"a\\Z", "a|b", "^a$", "(?s).*?"]
)
def test_good(pattern: str) -> None:
    assert refusal(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "is not a regular expression"),
        ("(?=a)", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "a back-reference"),
        ("(?P<n>a)(?P=n)", "a back-reference"),
        ("(a)?(?(1)b|c)", "a conditional group"),
        ("(?>a)", "an atomic group"),
        ("a++", "a possessive repeat"),
        ("a{1001}", "more than 1000"),
        ("(a{2,1001})*", "more than 1000"),
        (r"a\Z", r"\Z"),
        ("(?x) a", "(?x)"),
        ("(?#c)a", "(?#"),
        ("[[:alpha:]]", "is not supported"),
        ("é", "is not ASCII"),
        ("(" * 5000 + ")" * 5000, "is not a regular expression"),
    ],
)
def test_bad(pattern: str, reason: str) -> None:
    assert reason in (refusal(pattern) or "")
