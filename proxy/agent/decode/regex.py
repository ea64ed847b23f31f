"""Regular expressions that mean the same in Envoy (RE2) and here (Python's re)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]  # the only way to see what a pattern is made of
from typing import Any

MAX_LENGTH = 4096
"""Characters; RE2's own bound is on program size (100 instructions are Envoy's default warning level)."""

_MAX_REPEAT = 1000  # RE2: kMaxRepeat
_REFUSED = {
    _constants.GROUPREF: "a backreference",
    _constants.GROUPREF_IGNORE: "a backreference",
    _constants.GROUPREF_EXISTS: "a conditional group",
    _constants.ASSERT: "a lookaround assertion",
    _constants.ASSERT_NOT: "a lookaround assertion",
    _constants.ATOMIC_GROUP: "an atomic group",
    _constants.POSSESSIVE_REPEAT: "a possessive quantifier",
}
# Escapes and flags that only Python knows. An escaped backslash is consumed first: it opens none of these.
_PYTHON_ONLY = re.compile(r"\\(?:[^Z])|(\\Z|\(\?[a-zA-Z]*[aLx][a-zA-Z]*(?:-[a-zA-Z]+)?[:)]|\(\?#)", re.DOTALL)


def refusal(pattern: str) -> str | None:
    """Why a pattern cannot be used, as the end of a sentence, or None when it can."""
    if len(pattern) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if not pattern.isascii():
        return "is not ASCII; the worker matches bytes, where a class of other characters means something else"
    try:
        with warnings.catch_warnings():
            # FutureWarning: [[:alpha:]] and the like, which RE2 knows and Python would misread.
            warnings.simplefilter("error")
            re.compile(pattern.encode())  # as the worker does
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a regular expression: {error}"
    except Warning as warning:
        return f"is not supported: {warning}"
    for match in _PYTHON_ONLY.finditer(pattern):
        if match[1]:
            return f"uses {match[1]}, which RE2 (Envoy) does not have"
    for problem in _problems(tree):
        return f"uses {problem}, which RE2 (Envoy) does not have"
    return None


def _problems(node: Any) -> Iterator[str]:
    """Walk sre's parse tree: nested lists and tuples of (opcode, argument)."""
    if isinstance(node, _parser.SubPattern):
        for item in node:
            yield from _problems(item)
    elif isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], type(_constants.ASSERT)):
        opcode, argument = node
        if opcode in _REFUSED:
            yield _REFUSED[opcode]
        if opcode in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            low, high, _ = argument
            if low > _MAX_REPEAT or (high != _constants.MAXREPEAT and high > _MAX_REPEAT):
                yield f"a repetition of more than {_MAX_REPEAT}"
        yield from _problems(argument)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _problems(item)
