"""The hash functions that Envoy balances with: the same key has the same hash in both."""

from __future__ import annotations

from typing import Final

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_P1: Final = 0x9E3779B185EBCA87
_P2: Final = 0xC2B2AE3D27D4EB4F
_P3: Final = 0x165667B19E3779F9
_P4: Final = 0x85EBCA77C2B2AE63
_P5: Final = 0x27D4EB2F165667C5


def _round(lane: int, value: int) -> int:
    lane = (lane + value * _P2) & _MASK
    return (((lane << 31) | (lane >> 33)) & _MASK) * _P1 & _MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    """XXH64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md): 64 bits."""
    size = len(data)
    at = 0
    if size >= 32:
        a, b, c, d = (seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK
        while at + 32 <= size:
            a = _round(a, int.from_bytes(data[at : at + 8], "little"))
            b = _round(b, int.from_bytes(data[at + 8 : at + 16], "little"))
            c = _round(c, int.from_bytes(data[at + 16 : at + 24], "little"))
            d = _round(d, int.from_bytes(data[at + 24 : at + 32], "little"))
            at += 32
        h = ((a << 1) | (a >> 63)) + ((b << 7) | (b >> 57)) + ((c << 12) | (c >> 52)) + ((d << 18) | (d >> 46))
        h &= _MASK
        for lane in (a, b, c, d):
            h = ((h ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        h = (seed + _P5) & _MASK
    h = (h + size) & _MASK
    while at + 8 <= size:
        h ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        h = ((((h << 27) | (h >> 37)) & _MASK) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= size:
        h ^= int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK
        h = ((((h << 23) | (h >> 41)) & _MASK) * _P2 + _P3) & _MASK
        at += 4
    while at < size:
        h ^= data[at] * _P5 & _MASK
        h = (((h << 11) | (h >> 53)) & _MASK) * _P1 & _MASK
        at += 1
    h = (h ^ (h >> 33)) * _P2 & _MASK
    h = (h ^ (h >> 29)) * _P3 & _MASK
    return h ^ (h >> 32)


_MUL: Final = 0xC6A4A7935BD1E995
MURMUR_SEED: Final = 0xC70F6907
"""The seed of libstdc++'s std::hash, which Envoy keeps (RingHashLbConfig.HashFunction.MURMUR_HASH_2)."""


def murmur2(data: bytes, seed: int = MURMUR_SEED) -> int:
    """MurmurHash2, 64 bits, as libstdc++ has it (libsupc++/hash_bytes.cc)."""
    size = len(data)
    whole = size & ~7
    h = (seed ^ (size * _MUL)) & _MASK
    at = 0
    while at < whole:
        value = int.from_bytes(data[at : at + 8], "little") * _MUL & _MASK
        h = (h ^ ((value ^ (value >> 47)) * _MUL & _MASK)) * _MUL & _MASK
        at += 8
    if at < size:
        h = (h ^ int.from_bytes(data[at:], "little")) * _MUL & _MASK
    h = (h ^ (h >> 47)) * _MUL & _MASK
    return h ^ (h >> 47)
