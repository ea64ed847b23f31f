"""W3C Trace Context: continued when valid, restarted when not."""

from __future__ import annotations

import random
import re

import pytest

from proxy.telemetry.trace import follow

RNG = random.Random(3).getrandbits
ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (f"00-{ID}-{SPAN}-01", b"01"),
        (f"00-{ID}-{SPAN}-00", b"00"),
        (f"00-{ID}-{SPAN}-ff", b"01"),
        (f"cc-{ID}-{SPAN}-01-what-the-future-brings", b"01"),
        (f"cc-{ID}-{SPAN}-01", b"01"),
    ],
)
def test_a_valid_parent_is_continued(value: str, flags: bytes) -> None:
    trace = follow(value.encode(), RNG)
    assert trace.continued
    assert trace.trace_id == ID.encode()
    assert trace.span_id != SPAN.encode()
    assert trace.flags == flags
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", trace.traceparent())


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{ID}-{SPAN}",
        f"00-{ID}-{SPAN}-01-more",
        f"ff-{ID}-{SPAN}-01",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID}-{SPAN}-1",
        f"00-{ID}-{SPAN}-0g",
        f" 00-{ID}-{SPAN}-01",
        f"cc-{ID}-{SPAN}-01.x",
        f"00-{ID}-{SPAN}-01\n",
    ],
)
def test_an_invalid_parent_starts_a_new_trace(value: str) -> None:
    trace = follow(value.encode(), RNG)
    assert not trace.continued
    assert trace.trace_id != ID.encode()
    assert trace.flags == b"01"
