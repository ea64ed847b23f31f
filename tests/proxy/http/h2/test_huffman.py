"""HPACK's Huffman code (RFC 7541 §5.2, Appendix B), with the hpack library as the oracle."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.h2 import huffman

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
EOS = (REQUEST_CODES[256], REQUEST_CODES_LENGTH[256])


def bits(*codes: tuple[int, int]) -> bytes:
    """Codes of so many bits, one behind the other, filled up with ones."""
    text = "".join(f"{code:0{length}b}" for code, length in codes)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def test_the_codes_are_those_of_appendix_b() -> None:
    assert huffman.codes() == list(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True))


@given(st.binary(max_size=200))
@example(bytes(range(256)))
@example(bytes(range(255, -1, -1)))
@example(b"")
def test_what_was_encoded_is_decoded(text) -> None:
    assert huffman.decode(ENCODER.encode(text)) == text
    assert huffman.decode_name(ENCODER.encode(text)) == text


@given(st.binary(max_size=40) | st.lists(st.sampled_from([0xFF, 0xFE, 0x7F, 0x1F, 0]), max_size=12).map(bytes))
def test_any_octets_are_taken_or_refused_as_the_oracle_does(data) -> None:
    try:
        expected = decode_huffman(data)
    except HPACKDecodingError:
        expected = None
    assert huffman.decode(data) == expected
    assert huffman.decode_name(data) == expected


def test_padding_is_what_eos_begins_with_and_shorter_than_an_octet() -> None:
    for symbol, code in enumerate(huffman.codes()[:256]):
        assert huffman.decode(bits(code)) == bytes((symbol,))
        assert huffman.decode(bits(code, (0xFF, 8))) is None
        padding = -code[1] % 8
        if padding < 5:  # as the shortest code: more bits could be another character
            for wrong in range((1 << padding) - 1):
                assert huffman.decode(bits(code, (wrong, padding))) is None


@pytest.mark.parametrize(
    "data",
    [
        bits(EOS),
        bits(EOS, EOS),
        bits((0x3, 5), EOS),  # a, EOS
        bits(EOS, (0x3, 5)),
        bits((0x3, 5), EOS, (0x3, 5), (0x3, 5)),
        b"\xff" * 64,
    ],
)
def test_eos_is_no_part_of_a_string(data) -> None:
    assert huffman.decode(data) is None


def test_more_names_than_are_remembered_are_decoded_all_the_same() -> None:
    for number in range(3000):
        name = b"name-%d" % number
        assert huffman.decode_name(ENCODER.encode(name)) == name
    assert len(huffman._names) <= 1024
