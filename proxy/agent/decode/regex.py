"""Which regular expressions are taken: those that the worker's engine, RE2 as in Envoy, compiles."""

from __future__ import annotations

from proxy.routing.matchers import regex

MAX_LENGTH = 4096
"""Characters; RE2's own bound is on program size (100 instructions are Envoy's default warning level)."""


def refusal(pattern: str) -> str | None:
    """Why a pattern cannot be used, as the end of a sentence, or None when it can."""
    if len(pattern) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    try:
        regex(pattern)
    except ValueError as error:
        return f"is not one that RE2 takes: {error}"
    return None
