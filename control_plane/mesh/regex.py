"""Regular expressions that mean the same in RE2 (Envoy) and in Python (Pillion's sidecar, which matches bytes).

What passes here passes both: one bad pattern would make every proxy refuse the whole route configuration.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]  # the only way to see what a pattern is made of
from typing import Any

MAX_REPEAT = 1000  # RE2's kMaxRepeat

_REFUSED = {
    _constants.GROUPREF: "a back-reference",
    _constants.GROUPREF_IGNORE: "a back-reference",
    _constants.GROUPREF_EXISTS: "a conditional group",
    _constants.ASSERT: "look-around",
    _constants.ASSERT_NOT: "look-around",
    _constants.ATOMIC_GROUP: "an atomic group",
    _constants.POSSESSIVE_REPEAT: "a possessive repeat",
}
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
# What only Python can read. An escaped backslash is consumed first: it begins none of these.
_PYTHON_ONLY = re.compile(r"\\(?:[^Z])|(\\Z|\(\?[a-zA-Z]*[aLux][a-zA-Z]*(?:-[a-zA-Z]+)?[:)]|\(\?#)", re.DOTALL)


def refusal(pattern: str) -> str | None:
    """Why a pattern cannot be used, as the end of a sentence; None when it can."""
    if not pattern.isascii():
        return "is not ASCII"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # [[:alpha:]] and the like: RE2 knows them, Python would misread them
            re.compile(pattern.encode())
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a regular expression: {error}"
    except Warning as warning:
        return f"is not supported: {warning}"
    python_only = next((found[1] for found in _PYTHON_ONLY.finditer(pattern) if found[1]), None)
    problem = python_only or next(_problems(tree), None)
    return f"uses {problem}, which RE2 (Envoy) does not have" if problem else None


def _problems(node: Any) -> Iterator[str]:
    # sre's parse tree: nested lists and tuples of (opcode, argument).
    if isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], type(_constants.ASSERT)):
        opcode, argument = node
        if opcode in _REFUSED:
            yield _REFUSED[opcode]
        elif opcode in _REPEATS:
            least, most, _ = argument
            if least > MAX_REPEAT or (most != _constants.MAXREPEAT and most > MAX_REPEAT):
                yield f"a repeat of more than {MAX_REPEAT}"
        yield from _problems(argument)
    elif isinstance(node, list | tuple | _parser.SubPattern):
        for item in node:
            yield from _problems(item)
