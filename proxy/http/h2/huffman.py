"""HPACK's Huffman code (RFC 7541 §5.2, Appendix B): decoding only, since we send strings as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine word in the compiled form, and no more than a note in the other

# How long each octet's code is, in bits; the last one is EOS. The code is canonical: codes of one length are
# consecutive, in the order of their octets, so the lengths say all.
_LENGTHS: Final = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5,
    6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22,
    22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21,
    20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22,
    23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27,
    28, 27, 27, 27, 27, 27, 26, 30,
)  # fmt: skip
_EOS: Final = 256


def codes() -> list[tuple[int, int]]:
    """(code, its length in bits) of each octet and of EOS."""
    result = [(0, 0)] * len(_LENGTHS)
    code = 0
    last = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_LENGTHS)):
        code <<= length - last
        last = length
        result[symbol] = (code, length)
        code += 1
    return result


def _tree() -> list[list[int]]:
    """Per inner node, what follows a 0 and a 1: an inner node, or ~symbol."""
    nodes = [[0, 0]]
    for symbol, (code, length) in enumerate(codes()):
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if nodes[node][bit] == 0:
                nodes[node][bit] = len(nodes)
                nodes.append([0, 0])
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
    return nodes


_NONE: Final = 0
_ONE: Final = 1
_END: Final = 2


def _steps() -> list[tuple[int, int, int]]:
    """Per inner node and four bits: the inner node behind them, what they complete, and which character that is.

    The shortest code has five bits, so it is one character at most, or none, or EOS.
    """
    nodes = _tree()
    steps = []
    for start in range(len(nodes)):
        for bits in range(16):
            node, found, character = start, _NONE, 0
            for shift in (3, 2, 1, 0):
                node = nodes[node][bits >> shift & 1]
                if node < 0:
                    found, character = (_END, 0) if node == ~_EOS else (_ONE, ~node)
                    node = 0
            steps.append((node, found, character))
    return steps


def _ends() -> bytes:
    """Per inner node, 1 if a string may end there: after fewer than eight bits of padding, all ones."""
    nodes = _tree()
    ends = bytearray(len(nodes))
    node = 0
    for _ in range(8):
        ends[node] = 1
        node = nodes[node][1]
    return bytes(ends)


# Small tables, four bits at a step: larger steps are slower as soon as the caches have other things to hold.
_NEXT: Final[bytes] = bytes([node for node, _, _ in _steps()])
_FOUND: Final[bytes] = bytes([found for _, found, _ in _steps()])
_CHARACTER: Final[bytes] = bytes([character for _, _, character in _steps()])
_TEXT: Final[list[bytes]] = [bytes((octet,)) for octet in range(256)]
_ENDS: Final[bytes] = _ends()
_MAX_NAMES: Final = 1024
_names: dict[bytes, bytes] = {}


def decode(data: bytes) -> bytes | None:
    """The string, or None when it is none: it holds EOS, or its padding is not the beginning of EOS, or is too long."""
    out: list[bytes] = []
    node: i64 = 0
    at: i64 = 0
    end: i64 = len(data)
    while at < end:
        octet: i64 = data[at]
        at += 1
        step: i64 = node * 16 + (octet >> 4)
        found: i64 = _FOUND[step]
        if found != _NONE:
            if found == _END:
                return None
            out.append(_TEXT[_CHARACTER[step]])
        step = _NEXT[step] * 16 + (octet & 15)
        found = _FOUND[step]
        if found != _NONE:
            if found == _END:
                return None
            out.append(_TEXT[_CHARACTER[step]])
        node = _NEXT[step]
    return b"".join(out) if _ENDS[node] else None


def decode_name(data: bytes) -> bytes | None:
    """As decode does, for names: they are few, so they are remembered, within a bound."""
    known = _names.get(data)
    if known is not None:
        return known
    name = decode(data)
    if name is not None and len(data) <= 64:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        _names[data] = name
    return name
