"""HPACK encoding (RFC 7541), read back by the hpack library and by our own decoder, which is the stricter one."""

from __future__ import annotations

import tracemalloc

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.h2.decoder import Decoder
from proxy.http.h2.encoder import Encoder
from proxy.http.h2.static_table import PAIRS
from proxy.http.headers import SECRET

NAMES = [
    b":method", b":path", b":status", b":authority", b"content-type", b"traceparent", b"authorization", b"cookie",
    b"te", b"grpc-timeout", b"x-a", b"x-b", b"x-c", b"n" * 70,
]  # fmt: skip
VALUES = [
    b"", b"GET", b"/", b"200", b"a", b"b", b"application/grpc", b"z" * 127, b"y" * 300, b"x" * 5000, b"\x00\xff",
    *(b"%d" % number for number in range(20)),
]  # fmt: skip
pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES))
blocks_of_fields = st.lists(
    st.tuples(
        st.lists(pairs, max_size=10),
        st.lists(st.sampled_from([0, 1, 33, 40, 100, 150, 400, 1000, 4095, 4096, 65536]), max_size=3),
        st.sampled_from([[], [], [], [b"x-a"], [b":path", b"content-type"]]),
    ),
    max_size=12,
)
PAIR = (b"x-name", b"value of it")
UNIQUE = [b"traceparent", b"x-request-id", b"grpc-timeout", b"content-length", b"etag", b"tracestate"]


def read(decoder: hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]]:
    return [tuple(pair) for pair in decoder.decode(block, raw=True)]


def indexed(encoder: Encoder, pair: tuple[bytes, bytes]) -> Encoder:
    """The encoder, with `pair` in its table."""
    while len(encoder.encode([pair], [])) > 2:
        pass
    return encoder


@given(blocks_of_fields)
def test_what_is_encoded_is_read_by_the_oracle_and_by_ourselves(blocks) -> None:
    encoder = Encoder(4096)
    oracle = hpack.Decoder(max_header_list_size=1 << 30)
    decoder = Decoder(4096)
    for fields, limits, sensitive in blocks:
        for limit in limits:
            encoder.limit(limit)
            oracle.max_allowed_table_size = limit
            decoder.limit(limit)
        block = encoder.encode(fields, sensitive)
        found = oracle.decode(block, raw=True)
        assert [tuple(pair) for pair in found] == fields
        assert [field.pair for field in decoder.decode(block, 1 << 20, 100)] == fields
        assert decoder.sensitive == [pair[0] for pair in found if isinstance(pair, hpack.NeverIndexedHeaderTuple)]
        assert {name for name, _ in fields if name in sensitive or name in SECRET} == set(decoder.sensitive)
        # Nothing that is secret, or that differs with every message, is in the peer's table.
        held = {name for name, _ in oracle.header_table.dynamic_entries}
        assert not held & (SECRET | {b"traceparent", b"grpc-timeout"})


def test_a_pair_of_the_static_table_is_one_octet() -> None:
    for index, pair in enumerate(PAIRS, 1):
        encoder = Encoder(4096)
        for _ in range(2):
            block = encoder.encode([pair], [])
            assert read(hpack.Decoder(), block) == [pair]
            if pair[1]:
                assert block == bytes((0x80 + index,))


def test_a_pair_enters_the_table_when_it_comes_again_on_any_connection() -> None:
    pair = (b"x-first", b"seen nowhere")
    first, second = Encoder(4096), Encoder(4096)
    assert first.encode([pair], []) == b"\x00\x07x-first\x0cseen nowhere"
    assert first.encode([pair], []) == b"\x40\x07x-first\x0cseen nowhere"
    assert first.encode([pair], []) == b"\xbe"
    assert second.encode([pair], []) == b"\x40\x07x-first\x0cseen nowhere"
    assert second.encode([pair], []) == b"\xbe"


def test_what_hardly_changes_enters_the_table_at_once() -> None:
    encoder = Encoder(4096)
    head = [(b":authority", b"a new one"), (b"content-type", b"application/new"), (b"te", b"trailers")]
    assert encoder.encode(head, [])[:1] == b"\x41"
    assert encoder.encode(head, []) == b"\xc0\xbf\xbe"


@pytest.mark.parametrize("name", UNIQUE)
def test_what_changes_with_every_message_never_enters_the_table(name) -> None:
    encoder = Encoder(4096)
    blocks = {encoder.encode([(name, b"the same")], []) for _ in range(4)}
    assert len(blocks) == 1
    assert blocks.pop()[0] < 0x10


@pytest.mark.parametrize("name", sorted(SECRET))
def test_secrets_are_never_indexed(name) -> None:
    encoder = Encoder(4096)
    for value in (b"secret", b""):
        blocks = {encoder.encode([(name, value)], []) for _ in range(4)}
        assert len(blocks) == 1
        (field,) = hpack.Decoder().decode(blocks.pop(), raw=True)
        assert isinstance(field, hpack.NeverIndexedHeaderTuple)


def test_what_came_never_indexed_goes_on_so() -> None:  # §6.2.3
    encoder = indexed(Encoder(4096), PAIR)
    other = (b"x-other", b"1")
    for pair in (PAIR, (b":method", b"GET")):
        fields = hpack.Decoder().decode(indexed(encoder, pair).encode([pair], [b"x-other", pair[0]]), raw=True)
        assert [isinstance(field, hpack.NeverIndexedHeaderTuple) for field in fields] == [True]
    assert encoder.encode([(b":method", b"GET"), PAIR, other], [b"x-other"]) == b"\x82\xbe\x10\x07x-other\x011"
    assert encoder.encode([PAIR], []) == b"\xbe"


def test_the_oldest_leave_first_and_may_come_again() -> None:
    encoder, oracle = Encoder(4096), hpack.Decoder()
    values = [(b"te", b"%0100d" % number) for number in range(100)]  # 134 octets each, so 30 of them
    for _ in range(2):
        for pair in values:
            assert read(oracle, encoder.encode([pair], [])) == [pair]
    assert list(oracle.header_table.dynamic_entries) == values[:-31:-1]
    for pair in values[-30:]:
        assert len(encoder.encode([pair], [])) == 1
    assert len(encoder.encode([values[69]], [])) > 100


def test_large_fields_do_not_displace_the_others() -> None:
    encoder = indexed(Encoder(4096), PAIR)
    large = (b"te", b"x" * 1000)
    assert encoder.encode([large], []) == encoder.encode([large], [])
    small = Encoder(4096)
    small.limit(100)
    larger = (b"te", b"x" * 67)
    assert small.encode([larger], [])[2:] == small.encode([larger], [])
    assert encoder.encode([PAIR], []) == b"\xbe"


# ---- the size of the table


def test_a_size_of_4096_needs_no_word() -> None:
    for size in (4096, 65536):
        encoder = Encoder(size)
        assert encoder.encode([(b":method", b"GET")], []) == b"\x82"
        encoder.limit(65536)
        assert encoder.encode([(b":method", b"GET")], []) == b"\x82"


def test_changes_of_the_limit_are_told_once() -> None:  # §4.2
    encoder = indexed(Encoder(4096), PAIR)
    encoder.limit(100)
    assert encoder.encode([PAIR], []) == b"\x3f\x45\xbe"
    assert encoder.encode([PAIR], []) == b"\xbe"
    encoder.limit(0)
    encoder.limit(50)
    encoder.limit(4096)
    block = encoder.encode([PAIR], [])
    assert block[:4] == b"\x20\x3f\xe1\x1f"
    assert block[4] == 0x40
    assert encoder.encode([PAIR], []) == b"\xbe"
    encoder.limit(4096)
    assert encoder.encode([PAIR], []) == b"\xbe"
    encoder.limit(0)
    assert encoder.encode([PAIR], [])[:2] == b"\x20\x00"
    assert encoder.encode([PAIR], [])[0] == 0


def test_a_smaller_table_than_the_usual_one_is_announced() -> None:
    encoder = Encoder(0)
    assert encoder.encode([(b":method", b"GET")], []) == b"\x20\x82"
    encoder.limit(4096)
    assert encoder.encode([(b":method", b"GET")], []) == b"\x82"
    assert encoder.encode([PAIR], [])[0] == encoder.encode([PAIR], [])[0] == 0


# ---- bounds


def test_values_that_never_come_again_cost_no_memory() -> None:
    encoder = indexed(Encoder(4096), PAIR)
    tracemalloc.start()
    try:
        for number in range(20000):
            encoder.encode([(b"x-unique", b"%0200d" % number)], [])
        assert tracemalloc.get_traced_memory()[0] < 250_000  # their hashes
    finally:
        tracemalloc.stop()
    assert encoder.encode([PAIR], []) == b"\xbe"


def test_more_names_than_are_remembered_are_encoded_all_the_same() -> None:
    encoder, oracle = Encoder(4096), hpack.Decoder()
    for number in range(3000):
        pair = (b"x-name-%d" % number, b"")
        assert read(oracle, encoder.encode([pair], [])) == [pair]
