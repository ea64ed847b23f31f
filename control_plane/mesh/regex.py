"""Which regular expressions are taken: those of RE2, the engine of Envoy and of Pillion's sidecar.

One bad pattern would make every proxy refuse the whole route configuration.
"""

from __future__ import annotations

import re2

MAX_LENGTH = 4096
"""Characters, as in the sidecar."""


def refusal(pattern: str) -> str | None:
    """Why a pattern cannot be used, as the end of a sentence; None when it can."""
    if len(pattern) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern.encode(), options)
    except re2.error as error:  # whose text comes as bytes
        return f"is not one that RE2 takes: {error.args[0].decode('utf-8', 'replace')}"
    return None
