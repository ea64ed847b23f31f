"""Only patterns that Envoy's RE2 and Python's re read alike are taken."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.agent.decode.regex import refusal


@pytest.mark.parametrize(
    "pattern",
    ["/items/[0-9]+", "", ".*", r"a{2,1000}", r"(?i)cart|CART", r"(?P<name>x)+?", r"\d\w\s\b", r"\\Z", r"[\]a-z^-]", "(?:a)", "^a$", r"\x41", r"\.", "(?s:.)", r"\\\\u"],
)  # fmt: skip
def test_common_patterns_are_taken(pattern: str) -> None:
    assert refusal(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "is not a regular expression"),
        ("*", "is not a regular expression"),
        (r"\pL", "is not a regular expression"),
        (r"(a)\1", "a backreference"),
        (r"(?P<a>x)(?P=a)", "a backreference"),
        (r"(?i)(a)\1", "a backreference"),
        ("(?=a)", "a lookaround assertion"),
        ("(?!a)", "a lookaround assertion"),
        ("(?<=a)b", "a lookaround assertion"),
        ("x(?:y|(?<!a)b)*", "a lookaround assertion"),
        ("(a)(?(1)b|c)", "a conditional group"),
        ("(?>a)", "an atomic group"),
        ("a++", "a possessive quantifier"),
        ("a{1001}", "a repetition of more than 1000"),
        ("a{2,1001}", "a repetition of more than 1000"),
        (r"a\Z", r"uses \Z"),
        (r"\\\Z", r"uses \Z"),
        (r"\u0041", "bad escape"),
        ("(?u)a", "cannot use"),
        ("(?x) a", "uses (?x)"),
        ("(?a)b", "uses (?a)"),
        ("(?ix:a)", "uses (?ix:"),
        ("(?#a)", "uses (?#"),
        ("[[:alpha:]]", "is not supported"),
        ("[é-ü]", "is not ASCII"),
        ("a" * 4097, "longer than 4096"),
    ],
)
def test_others_are_refused_with_the_reason(pattern: str, words: str) -> None:
    assert words in (refusal(pattern) or "")


@settings(deadline=None)
@given(st.text(alphabet=r"ab01\()[]{}?*+|^$.,:=!<>-PZuxiLn", max_size=12))
def test_a_pattern_is_taken_or_refused_never_raised(pattern: str) -> None:
    if refusal(pattern) is None:
        re.compile(pattern.encode())
