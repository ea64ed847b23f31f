"""Several pickers, each with its share: priorities, localities, zones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.policy.balance.hosts import Context, H, Picker


class Split(Picker[H]):
    """Draws one of its parts by share, O(number of parts), and lets it pick. Parts of no share, and those that were not
    drawn, serve only when all that the others have is to be avoided, in order.

    `by_hash`: the request's hash decides, if it has one, so that the same request gets the same part."""

    __slots__ = ("_bounds", "_by_hash", "_draw", "_parts", "_whole")

    def __init__(
        self, parts: Sequence[tuple[float, Picker[H]]], draw: Callable[[], float], by_hash: bool = False
    ) -> None:
        """`parts`: (share, picker); the shares are relative."""
        self._parts = [picker for _, picker in parts]
        self._draw = draw
        self._by_hash = by_hash
        total = 0.0
        self._bounds: list[float] = []
        for share, _ in parts:
            total += share
            self._bounds.append(total)
        # The only part that has a share, as it is with one priority in use: no draw.
        used = [picker for share, picker in parts if share > 0]
        self._whole: Picker[H] | None = used[0] if len(used) == 1 else None

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """What the part that was drawn picks."""
        part = self._whole
        if part is None:
            part = self._drawn(context)
            if part is None:
                return None
        host = part.pick(avoid, context)
        if host is not None and (not avoid or host not in avoid):
            return host
        for other in self._parts:
            found = other.pick(avoid, context)
            if found is not None and (found not in avoid or host is None):
                return found
        return host

    def _drawn(self, context: Context | None) -> Picker[H] | None:
        bounds = self._bounds
        if not bounds:
            return None
        if self._by_hash and context is not None and context.hash_key is not None:
            point = (context.hash_key % 9973) / 9973 * bounds[-1]
        else:
            point = self._draw() * bounds[-1]
        for index, bound in enumerate(bounds):
            if point < bound:
                return self._parts[index]
        return self._parts[-1]
