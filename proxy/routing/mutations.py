"""Headers added and removed by a route, its virtual host and its route configuration (envoy.config.route.v3).

Compiled once a snapshot. As in Envoy each level first removes, then adds; a value with command operators sees the
headers as the level before left them, and one that comes out empty is not added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from proxy.config.route import HeaderValueOption

Headers = list[tuple[bytes, bytes]]


class Format(Protocol):
    """A compiled format string."""

    def write(self, record: Any) -> str:
        """The text for the request that `record` tells of."""


_CONTROLS: Final = bytes(0x20 if byte < 0x20 or byte == 0x7F else byte for byte in range(256))
"""What a client or upstream brought into a value must not end the line (RFC 9110 §5.5)."""


class _Addition:
    """One HeaderValueOption. `value` is constant when `form` is None."""

    __slots__ = ("action", "form", "keep_empty", "name", "value")

    def __init__(self, option: HeaderValueOption, compile_value: Callable[[str], Format]) -> None:
        self.name = option.name.encode()
        self.action = option.append_action
        self.keep_empty = option.keep_empty_value
        self.form: Format | None = compile_value(option.value) if "%" in option.value else None
        self.value = option.value.encode()

    def text(self, record: Any) -> bytes:
        """The value for this request."""
        if self.form is None:
            return self.value
        return self.form.write(record).encode("latin-1", "replace").translate(_CONTROLS)


class _Level:
    """What one message says."""

    __slots__ = ("additions", "removed")

    def __init__(self, additions: tuple[_Addition, ...], removed: frozenset[bytes]) -> None:
        self.additions = additions
        self.removed = removed

    def apply(self, headers: Headers, record: Any) -> None:
        values = [addition.text(record) for addition in self.additions]
        if self.removed:
            headers[:] = [pair for pair in headers if pair[0] not in self.removed]
        for addition, value in zip(self.additions, values, strict=True):
            if value or addition.keep_empty:
                _add(headers, addition.name, value, addition.action)


def _add(headers: Headers, name: bytes, value: bytes, action: str) -> None:
    if action != "APPEND_IF_EXISTS_OR_ADD":
        exists = name in [pair[0] for pair in headers]
        if action == "ADD_IF_ABSENT":
            if exists:
                return
        elif exists:
            headers[:] = [pair for pair in headers if pair[0] != name]
        elif action == "OVERWRITE_IF_EXISTS":
            return
    headers.append((name, value))


class HeaderEdits:
    """The levels, in the order in which they apply. `names`: every header that they may touch."""

    __slots__ = ("_levels", "names")

    def __init__(self, levels: list[_Level]) -> None:
        self._levels = levels
        names: set[bytes] = set()
        for level in levels:
            names |= level.removed
            names.update([addition.name for addition in level.additions])
        self.names = frozenset(names)

    def apply(self, headers: Headers, record: Any) -> None:
        """Change the headers of a request or response in place. `record` is what the values' operators read."""
        for level in self._levels:
            level.apply(headers, record)


def compile_edits(
    levels: Sequence[tuple[tuple[HeaderValueOption, ...], tuple[str, ...]]], compile_value: Callable[[str], Format]
) -> HeaderEdits | None:
    """From (what is added, what is removed) a level; None when no level says anything."""
    compiled = [
        _Level(
            tuple([_Addition(option, compile_value) for option in added]),
            frozenset([name.encode() for name in removed]),
        )
        for added, removed in levels
        if added or removed
    ]
    return HeaderEdits(compiled) if compiled else None
