"""Token buckets, and tables of them."""

from __future__ import annotations

from math import ceil
from typing import Final


class TokenBucket:
    """Holds at most `capacity` tokens, full at first, and gets `rate` more a second, bit by bit: so in any t seconds it
    gives at most capacity + rate * t. Times are monotonic seconds."""

    __slots__ = ("_at", "_tokens", "capacity", "rate")

    def __init__(self, capacity: float, rate: float, now: float) -> None:
        self.capacity: Final = capacity
        self.rate: Final = rate
        self._tokens = capacity
        self._at = now

    def tokens(self, now: float) -> float:
        """How many there are."""
        if now > self._at:
            self._tokens = min(self.capacity, self._tokens + (now - self._at) * self.rate)
            self._at = now
        return self._tokens

    def take(self) -> None:
        """Take one of those that `tokens` has just told of."""
        self._tokens -= 1.0

    def wait(self, now: float) -> int:
        """Whole seconds until there is a token; 0 when there is one."""
        missing = 1.0 - self.tokens(now)
        return ceil(missing / self.rate) if missing > 0 else 0


class BucketTable:
    """Buckets by name, at most `most` of them: a new one takes the place of the one that was used least recently, which
    begins full if it comes again."""

    __slots__ = ("_buckets", "_most", "capacity", "rate")

    def __init__(self, capacity: float, rate: float, most: int) -> None:
        self.capacity: Final = capacity
        self.rate: Final = rate
        self._most: Final = most
        self._buckets: dict[object, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def get(self, name: object, now: float) -> TokenBucket:
        """The bucket of that name, which counts as used."""
        buckets = self._buckets
        bucket = buckets.pop(name, None)
        if bucket is None:
            if len(buckets) >= self._most:
                del buckets[next(iter(buckets))]
            bucket = TokenBucket(self.capacity, self.rate, now)
        buckets[name] = bucket
        return bucket


def tightest(buckets: list[TokenBucket], now: float) -> TokenBucket:
    """The one with the fewest tokens left, of at least one."""
    fewest = buckets[0]
    least = fewest.tokens(now)
    for bucket in buckets:
        tokens = bucket.tokens(now)
        if tokens < least:
            fewest, least = bucket, tokens
    return fewest


def admit(buckets: list[TokenBucket], now: float) -> bool:
    """Take a token of each of the buckets, or of none if one is empty (False)."""
    if buckets and tightest(buckets, now).tokens(now) < 1.0:
        return False
    for bucket in buckets:
        bucket.take()
    return True
