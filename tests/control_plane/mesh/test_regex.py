"""Patterns that RE2 takes, and the words for others."""

from __future__ import annotations

import pytest

from control_plane.mesh.regex import refusal


@pytest.mark.parametrize(
    "pattern",
    [
        "/[a-z]+/x",
        r"\d{1,1000}",
        "(?i:a)b",
        "(?P<n>x)",
        "[*+]+",
        r"\\1",
        r"a\\Z",
        "a|b",
        "^a$",
        "(?s).*?",
        "[[:alpha:]]",
        "é",
    ],
)
def test_good(pattern: str) -> None:
    assert refusal(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing )"),
        ("(?=a)", "(?="),
        ("(?<!a)b", "(?<"),
        (r"(a)\1", r"\1"),
        ("(?P<n>a)(?P=n)", "(?P"),
        ("(?>a)", "(?>"),
        ("a++", "++"),
        ("(a{2,1001})*", "{2,1001}"),
        (r"a\Z", r"\Z"),
        ("(?x) a", "(?x"),
        ("(" * 5000 + ")" * 5000, "longer than 4096"),
    ],
)
def test_bad(pattern: str, reason: str) -> None:
    assert reason in (refusal(pattern) or "")
