"""W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context/): continue a trace or start one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

# §3.2.2.3: lower-case hex only, version ff is invalid, all-zero ids are invalid; a higher version may carry more.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)


class Trace(NamedTuple):
    """The trace that a request belongs to, and the span that this hop is. `flags` is two hex digits."""

    trace_id: bytes
    span_id: bytes
    flags: bytes
    continued: bool

    def traceparent(self) -> bytes:
        """The header value for the next hop."""
        return b"00-%b-%b-%b" % (self.trace_id, self.span_id, self.flags)


def follow(traceparent: bytes | None, rng: Callable[[int], int]) -> Trace:
    """This hop's trace: the caller's if its traceparent is valid, else a new one. `rng(k)` gives k random bits.

    A new trace is marked sampled: who records decides later. `continued` is False when the incoming tracestate must
    be dropped too (§4.3: a receiver that restarts the trace discards tracestate).
    """
    span = b"%016x" % (rng(64) or 1)
    if traceparent is not None:
        found = _TRACEPARENT.fullmatch(traceparent)
        # §3.2.2.1: version 00 is exactly four fields; later versions may have more.
        if found is not None and (found[5] is None or found[1] != b"00"):
            # §3.2.2.5: only the flags that this version knows are passed on.
            flags = b"01" if int(found[4], 16) & 1 else b"00"
            return Trace(found[2], span, flags, True)
    return Trace(b"%032x" % (rng(128) or 1), span, b"01", False)
