"""A fixed share of the fuzzing, the same every time. More by hand: see tests/fuzz/run.py."""

from __future__ import annotations

import gc
import random

import pytest

from proxy.http.h2.stream import Stream
from tests.fuzz import driven
from tests.fuzz.fuzzing import check, make
from tests.fuzz.mutate import Maker

COUNT = 1000


@pytest.mark.parametrize("part", range(2))
def test_damaged_frames(part: int) -> None:
    """Nothing but ConnectionFailed is raised, the same bytes mean the same in any segments, and nothing grows."""
    for number in range(COUNT):
        seed = f"pillion-{part}-{number}"
        try:
            check(make(seed))
        except Exception as error:
            raise AssertionError(f"python -m tests.fuzz.run --seed {seed}") from error


def test_what_is_good_is_taken() -> None:
    """The sequences that are damaged are good ones: else the fuzzing would try nothing but the first refusal."""
    served = 0
    for number in range(300):
        one = driven.server() if number % 2 else driven.client()
        maker = Maker(random.Random(number))
        one.feed(b"".join(maker.requests() if number % 2 else maker.responses()))
        served += one.failed is None and any(seen.done for seen in one.streams.values())
    assert served > 150


def test_nothing_is_kept() -> None:
    """A connection that failed leaves no streams behind."""
    for number in range(200):
        check(make(f"kept-{number}"))
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Stream)]
