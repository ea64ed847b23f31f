"""One case of fuzzing: a damaged sequence of frames, fed to the codec in one piece and in others."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.fuzz import driven
from tests.fuzz.mutate import Maker, damaged

SECONDS = 1.0
"""CPU time that one input of some kilobytes may take; it takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class Input:
    """`side`: whose input it is, "server" or "client". `cuts`: where it is cut the second time."""

    side: str
    data: bytes
    cuts: tuple[int, ...]


def make(seed: str) -> Input:
    """The input of a seed."""
    rng = random.Random(seed)
    side = rng.choice(["server", "client"])
    maker = Maker(rng)
    data = b"".join(maker.requests() if side == "server" else maker.responses())
    for _ in range(rng.choice([0, 1, 1, 2])):
        data = damaged(data, rng)
    places = range(1, len(data)) if data[1:] else [0]
    cuts = tuple(sorted(rng.choices(places, k=rng.choice([1, 3, 30]))))
    return Input(side, data, cuts)


def check(one: Input) -> None:
    """Raises AssertionError, or whatever the codec should not have raised."""
    began = time.process_time()
    whole = driven.server() if one.side == "server" else driven.client()
    whole.feed(one.data)
    whole.check()
    parts = driven.server() if one.side == "server" else driven.client()
    parts.feed_split(one.data, one.cuts)
    parts.check()
    assert time.process_time() - began < SECONDS, "slow"
    assert parts.failed == whole.failed, f"in pieces {parts.failed}, in one {whole.failed}"
    assert parts.understood() == whole.understood()
