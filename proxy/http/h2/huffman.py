"""HPACK's Huffman code (RFC 7541 §5.2, Appendix B): decoding only, since we send strings as they are."""

from __future__ import annotations

from typing import Final

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
_FAILED: Final = 256
"""The state after EOS, which no string may hold. The others are the inner nodes of the tree, 0 is its root."""


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


class _State:
    """What came before an octet: an inner node of the tree. `text` and `follow` are filled in when it first occurs:
    few states do, as few characters are common."""

    __slots__ = ("ends", "follow", "node", "text")

    def __init__(self, node: int) -> None:
        self.node = node
        self.ends = False
        """Whether a string may end here: after fewer than eight bits of padding, all ones."""
        self.text: list[bytes] = []
        """Per octet, the characters that it completes."""
        self.follow: list[_State] = []
        """Per octet, the state behind it."""

    def fill(self) -> None:
        text: list[bytes] = []
        for octet in range(256):
            node = self.node
            found = b""
            for shift in range(7, -1, -1):
                if node == _FAILED:
                    break
                node = _NODES[node][octet >> shift & 1]
                if node == ~_EOS:
                    node = _FAILED
                elif node < 0:
                    found += bytes((~node,))
                    node = 0
            text.append(_texts.setdefault(found, found))
            self.follow.append(_STATES[node])
        self.text = text


def _states() -> list[_State]:
    states = [_State(node) for node in range(_FAILED + 1)]
    node = 0
    for _ in range(8):
        states[node].ends = True
        node = _NODES[node][1]
    return states


_NODES: Final[list[list[int]]] = _tree()
_STATES: Final[list[_State]] = _states()
_START: Final[_State] = _STATES[0]
_texts: dict[bytes, bytes] = {}
_MAX_NAMES: Final = 1024
_names: dict[bytes, bytes] = {}


def decode(data: bytes) -> bytes | None:
    """The string, or None when it is none: it holds EOS, or its padding is not the beginning of EOS, or is too long."""
    parts: list[bytes] = []
    state = _START
    for at in range(len(data)):
        octet = data[at]
        if not state.text:
            state.fill()
        parts.append(state.text[octet])
        state = state.follow[octet]
    return b"".join(parts) if state.ends else None


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
