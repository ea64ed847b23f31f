"""Who owns a stream when its exchange has left it."""

from __future__ import annotations

from typing import Final


class Nobody:
    """See the module's text. A closed stream that still points to its owner, which points to it, would have to
    wait for the garbage collector."""

    __slots__ = ()

    def on_stream(self) -> None:
        """Nobody cares."""

    def on_drained(self) -> None:
        """Nobody cares."""


NOBODY: Final = Nobody()
