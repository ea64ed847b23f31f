"""HPACK decoding (RFC 7541): the examples of its Appendix C, its errors, and the hpack library as the oracle."""

from __future__ import annotations

import tracemalloc

import hpack
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.http import headers
from proxy.http.h2.decoder import Decoder, HpackError
from proxy.http.h2.static_table import PAIRS

ALL = 1 << 20
NAMES = [
    b":method", b":path", b":status", b":authority", b"content-type", b"traceparent", b"authorization", b"cookie",
    b"te", b"x-a", b"x-b", b"x-c", b"Upper", b"",
]  # fmt: skip
VALUES = [b"", b"GET", b"/", b"200", b"a", b"b", b"application/grpc", b"z" * 60, b"y" * 900, b"x" * 5000, b"\x00\xff\r"]
fields_of_blocks = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=8)
sizes = st.sampled_from([0, 1, 31, 32, 33, 40, 100, 150, 1000, 4095, 4096])


def pairs(decoder: Decoder, block: bytes) -> list[tuple[bytes, bytes]]:
    return [field.pair for field in decoder.decode(block, ALL, 1000)]


def table(decoder: Decoder) -> list[tuple[bytes, bytes]]:
    """The dynamic table, the newest first, read by index."""
    found = []
    while True:
        try:
            found += pairs(decoder, integer(62 + len(found), 7, 0x80))
        except HpackError:
            return found


def integer(value: int, prefix: int, pattern: int) -> bytes:
    """§5.1."""
    full = (1 << prefix) - 1
    if value < full:
        return bytes((pattern | value,))
    out = [pattern | full]
    value -= full
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def string(value: bytes) -> bytes:
    return integer(len(value), 7, 0) + value


def literal(name: bytes, value: bytes, pattern: int = 0x40) -> bytes:
    """With a new name: 0x40 enters the table, 0x00 does not, 0x10 never."""
    return bytes((pattern,)) + string(name) + string(value)


def update(size: int) -> bytes:
    return integer(size, 5, 0x20)


# ---- Appendix C

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
REQUESTS = [
    GET,
    [*GET, (b"cache-control", b"no-cache")],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
DATE = b"Mon, 21 Oct 2013 20:13:21 GMT"
LATER = b"Mon, 21 Oct 2013 20:13:22 GMT"
PLACE = b"https://www.example.com"
RESPONSES = [
    [(b":status", b"302"), (b"cache-control", b"private"), (b"date", DATE), (b"location", PLACE)],
    [(b":status", b"307"), (b"cache-control", b"private"), (b"date", DATE), (b"location", PLACE)],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", LATER),
        (b"location", PLACE),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]


@pytest.mark.parametrize(
    ("block", "pair", "indexed", "sensitive"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), True, False),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False, False),
        ("100870617373776f726406736563726574", (b"password", b"secret"), False, True),
        ("82", (b":method", b"GET"), False, False),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_each_representation(block, pair, indexed, sensitive) -> None:
    decoder = Decoder(4096)
    assert pairs(decoder, bytes.fromhex(block)) == [pair]
    assert decoder.sensitive == ([pair[0]] if sensitive else [])
    assert table(decoder) == ([pair] if indexed else [])
    assert decoder.sensitive == []


@pytest.mark.parametrize(
    "blocks",
    [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ],
    ids=["C.3", "C.4"],
)
def test_requests_one_after_another(blocks) -> None:
    decoder = Decoder(4096)
    assert [pairs(decoder, bytes.fromhex(block)) for block in blocks] == REQUESTS
    assert table(decoder) == [
        (b"custom-key", b"custom-value"),
        (b"cache-control", b"no-cache"),
        (b":authority", b"www.example.com"),
    ]


@pytest.mark.parametrize(
    "blocks",
    [
        [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f"
            "7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a"
            "584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ],
        [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f36"
            "72c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
    ],
    ids=["C.5", "C.6"],
)
def test_responses_that_evict_each_other(blocks) -> None:
    decoder = Decoder(256)
    assert [pairs(decoder, bytes.fromhex(block)) for block in blocks] == RESPONSES
    assert table(decoder) == [RESPONSES[2][5], RESPONSES[2][4], RESPONSES[2][2]]


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (b"\x3f\x9a\x0a", 1337),  # C.1.2
        (b"\x2a", 10),  # C.1.1
        (b"\x3f\x00", 31),
        (b"\x3f\x80\x80\x80\x80\x00", 31),  # longer than it must be
    ],
)
def test_integers(block, value) -> None:
    Decoder(value).decode(block, ALL, 100)
    with pytest.raises(HpackError, match="above our limit"):
        Decoder(value - 1).decode(block, ALL, 100)


# ---- errors


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (b"\x80", "index 0 "),
        (b"\xbe", "index 62 "),
        (b"\xff\x00", "index 127 "),
        (b"\x7e\x01a", "index 62 "),
        (b"\x0f\x2f\x01a", "index 62 "),
        (b"\x1f\x2f\x01a", "index 62 "),
        (b"\xff", "integer"),
        (b"\xff\x80", "integer"),
        (b"\xff\x80\x80\x80\x80\x80\x00", "integer"),
        (b"\xff\xff\xff\xff\xff\x7f", "integer"),
        (update(1 << 31), "above our limit"),
        (update((1 << 31) + 1), "integer"),
        (b"\x40", "missing"),
        (b"\x40\x01a", "missing"),
        (b"\x42", "missing"),
        (b"\x40\x02a", "longer than its block"),
        (b"\x40\x01a\x02b", "longer than its block"),
        (b"\x40" + integer(1 << 31, 7, 0) + b"a", "longer than its block"),
        (b"\x40" + integer((1 << 31) + 1, 7, 0) + b"a", "integer"),
        (b"\x42\x81\xff", "Huffman"),
        (b"\x42\x81\x18", "Huffman"),
        (b"\x42\x84\xff\xff\xff\xfc", "Huffman"),
        (b"\x40\x81\xff\x01a", "Huffman"),
        (update(4097), "above our limit"),
        (b"\x82\x20", "does not begin a block"),
        (update(0) + b"\x82" + update(4096), "does not begin a block"),
    ],
)
def test_what_is_no_block_is_an_error(block, text) -> None:
    with pytest.raises(HpackError, match=text):
        Decoder(4096).decode(block, ALL, 100)


def test_a_lowered_limit_must_be_followed_by_an_update() -> None:  # §4.2
    for block in (b"\x82", b"", update(101) + b"\x82", update(4096)):
        decoder = Decoder(4096)
        decoder.limit(100)
        with pytest.raises(HpackError, match=r"§4\.2"):
            decoder.decode(block, ALL, 100)
    decoder = Decoder(4096)
    pairs(decoder, literal(b"a", b"1") + literal(b"b", b"2") + literal(b"c", b"3"))
    decoder.limit(68)
    assert pairs(decoder, update(68) + b"\x82") == [(b":method", b"GET")]
    assert table(decoder) == [(b"c", b"3"), (b"b", b"2")]


def test_the_lowest_of_several_limits_is_what_the_update_must_hold() -> None:
    decoder = Decoder(4096)
    decoder.limit(0)
    decoder.limit(2000)
    with pytest.raises(HpackError, match=r"§4\.2"):
        decoder.decode(update(2000), ALL, 100)
    decoder = Decoder(4096)
    pairs(decoder, literal(b"a", b"1"))
    decoder.limit(0)
    decoder.limit(2000)
    assert pairs(decoder, update(0) + update(2000) + literal(b"b", b"2")) == [(b"b", b"2")]
    assert table(decoder) == [(b"b", b"2")]
    with pytest.raises(HpackError, match="above our limit"):
        decoder.decode(update(2001), ALL, 100)


def test_a_limit_that_the_peer_keeps_already_needs_no_update() -> None:
    decoder = Decoder(4096)
    decoder.decode(update(50), ALL, 100)
    decoder.limit(100)
    assert pairs(decoder, b"\x82") == [(b":method", b"GET")]
    decoder.limit(8192)
    assert pairs(decoder, b"\x82") == [(b":method", b"GET")]
    assert pairs(decoder, update(8192) + b"\x82") == [(b":method", b"GET")]


def test_a_field_larger_than_the_table_empties_it() -> None:  # §4.4
    decoder = Decoder(100)
    pairs(decoder, literal(b"a", b"1"))
    large = (b"a", b"x" * 68)
    assert pairs(decoder, integer(62, 6, 0x40) + string(large[1])) == [large]  # it takes its name from what it evicts
    assert table(decoder) == []
    fits = (b"a", b"x" * 67)
    assert pairs(decoder, literal(*fits)) == [fits]
    assert table(decoder) == [fits]


# ---- limits


def test_beyond_the_limits_nothing_is_kept_but_the_table_goes_on() -> None:
    block = b"\x82" + literal(b"a", b"1") + b"\xbe" + literal(b"secret", b"2", 0x10)
    sizes = [42, 34, 34, 39]
    for count in range(5):
        for limit in range(sum(sizes) + 1):
            decoder = Decoder(4096)
            fields = decoder.decode(block, limit, count)
            kept = min(count, max(n for n in range(5) if sum(sizes[:n]) <= limit))
            assert [field.size for field in fields] == sizes[:kept]
            assert decoder.overflow == (kept < 4)
            assert decoder.sensitive == ([b"secret"] if kept == 4 else [])
            assert table(decoder) == [(b"a", b"1")]
            assert not decoder.overflow


def test_a_bomb_costs_no_memory() -> None:
    decoder = Decoder(4096)
    entry = literal(b"bomb", b"x" * (4096 - 36))
    limit = 60 * 1024
    tracemalloc.start()
    try:
        fields = decoder.decode(entry + b"\xbe" * 65536, limit, 1000)
        assert sum(field.size for field in fields) <= limit
        assert decoder.overflow
        # Never more than the entry, the block and the short list.
        assert tracemalloc.get_traced_memory()[1] < 200_000
        assert table(decoder) == [(b"bomb", b"x" * 4060)]
    finally:
        tracemalloc.stop()


def test_a_table_that_is_written_without_end_keeps_its_size() -> None:
    decoder = Decoder(4096)
    decoder.decode(literal(b"a", b"") * 1000, 0, 0)
    tracemalloc.start()
    try:
        for size in (0, 10, 3500, 1300):
            assert decoder.decode(literal(b"a", b"v" * size) * 5100, 0, 0) == []
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
    assert table(decoder) == [(b"a", b"v" * 1300)] * 3


# ---- what a field is


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        (b":method", b"GET", headers.METHOD),
        (b":scheme", b"http", headers.SCHEME),
        (b":path", b"/a", headers.PATH),
        (b":authority", b"a", headers.AUTHORITY),
        (b":status", b"200", headers.STATUS),
        (b":protocol", b"websocket", headers.PROTOCOL),
        (b":method", b"GET ", headers.MALFORMED),
        (b":other", b"a", headers.MALFORMED),
        (b":", b"a", headers.MALFORMED),
        (b"", b"a", headers.MALFORMED),
        (b"Upper", b"a", headers.MALFORMED),
        (b"two words", b"a", headers.MALFORMED),
        (b"colon:", b"a", headers.MALFORMED),
        (b"n\xc3\xa4me", b"a", headers.MALFORMED),
        (b"name\n", b"a", headers.MALFORMED),
        (b"plain", b"", headers.PLAIN),
        (b"plain", b"a b\tc \x80\xff", headers.PLAIN),
        (b"plain", b" a", headers.MALFORMED),
        (b"plain", b"\ta", headers.MALFORMED),
        (b"plain", b"a ", headers.MALFORMED),
        (b"plain", b"a\t", headers.MALFORMED),
        (b"plain", b" ", headers.MALFORMED),
        (b"plain", b"a\x00b", headers.MALFORMED),
        (b"plain", b"a\rb", headers.MALFORMED),
        (b"plain", b"a\nb", headers.MALFORMED),
        (b"plain", b"a\x1fb", headers.MALFORMED),
        (b"plain", b"a\x7fb", headers.MALFORMED),
        (b"cookie", b"a=b", headers.COOKIE),
        (b"host", b"a", headers.HOST),
        (b"te", b"trailers", headers.TE),
        (b"connection", b"close", headers.MALFORMED),
        (b"keep-alive", b"1", headers.MALFORMED),
        (b"transfer-encoding", b"chunked", headers.MALFORMED),
        (b"upgrade", b"a", headers.MALFORMED),
        (b"content-length", b"5", headers.CONTENT_LENGTH),
        (b"traceparent", b"a", headers.TRACEPARENT),
    ],
)
def test_a_field_is_classified_and_checked_when_it_is_made(name, value, kind) -> None:  # RFC 9113 §8.2.1
    decoder = Decoder(4096)
    for block in (literal(name, value), literal(name, value, 0x00), b"\xbe", b"\x7e" + string(value)):
        (field,) = decoder.decode(block, ALL, 10)
        assert (field.pair, field.kind, field.size) == ((name, value), kind, len(name) + len(value) + 32)


def test_a_name_that_a_malformed_field_lends_is_sound() -> None:
    decoder = Decoder(4096)
    assert decoder.decode(literal(b"te", b"\x00"), ALL, 10)[0].kind == headers.MALFORMED
    assert decoder.decode(b"\x7e" + string(b"trailers"), ALL, 10)[0].kind == headers.TE


def test_common_values_that_are_not_indexed_are_checked_once() -> None:
    first = [
        Decoder(4096).decode(block, ALL, 10)[0] for block in (b"\x04\x02/a", b"\x04\x82\x60\x7f", b"\x0f\x10\x011")
    ]
    again = [
        Decoder(4096).decode(block, ALL, 10)[0] for block in (b"\x04\x02/a", b"\x04\x82\x60\x7f", b"\x0f\x10\x011")
    ]
    assert [field.pair for field in first] == [(b":path", b"/a"), (b":path", b"/a"), (b"content-type", b"1")]
    assert all(one is other for one, other in zip(first, again, strict=True))
    (secret,) = Decoder(4096).decode(b"\x14\x02/a", ALL, 10)
    assert secret is not first[0]
    for length in range(300):
        for _ in range(2):
            assert pairs(Decoder(4096), b"\x04" + string(b"/" * length) + b"\x82") == [
                (b":path", b"/" * length),
                (b":method", b"GET"),
            ]
    for block in (b"\x04", b"\x04\x02/", b"\x04\x82\x60", b"\x04\x82\x60\x7e"):
        with pytest.raises(HpackError):
            Decoder(4096).decode(block, ALL, 10)


def test_names_of_http_2_do_not_reach_http_1() -> None:
    Decoder(4096).decode(literal(b":method", b"GET") + literal(b"no token", b"") + literal(b"", b""), ALL, 10)
    assert not {b":method", b"no token", b""} & (headers.KINDS.keys() | headers.SPELLINGS.keys())


def test_the_static_table_is_appendix_a() -> None:
    assert PAIRS == hpack.table.HeaderTable.STATIC_TABLE
    assert pairs(Decoder(4096), bytes(range(0x81, 0xBE))) == list(PAIRS)


# ---- the oracle


@given(st.lists(st.tuples(fields_of_blocks, st.lists(sizes, max_size=3), st.booleans(), st.booleans()), max_size=12))
def test_what_the_oracle_encodes_is_decoded(blocks) -> None:
    encoder = hpack.Encoder()
    decoder = Decoder(4096)
    for fields, changes, huffman, secret in blocks:
        for size in changes:
            if size != encoder.header_table_size:  # it forgets the changes before one that changes nothing
                encoder.header_table_size = size
        added = [(b"x-secret", b"s", True)] if secret else []
        assert pairs(decoder, encoder.encode([*fields, *added], huffman)) == [*fields, *(pair[:2] for pair in added)]
        assert decoder.sensitive == [pair[0] for pair in added]
    assert table(decoder) == list(encoder.header_table.dynamic_entries)


@st.composite
def broken(draw) -> tuple[list[bytes], bytes]:
    """Good blocks, and one that was cut or changed."""
    encoder = hpack.Encoder()
    huffman = draw(st.booleans())
    blocks = [encoder.encode(draw(fields_of_blocks), huffman) for _ in range(draw(st.integers(1, 3)))]
    last = bytearray(blocks.pop())
    for _ in range(draw(st.integers(0, 3))):
        if last:
            at = draw(st.integers(0, len(last) - 1))
            last[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return blocks, bytes(last[: draw(st.integers(0, len(last)))])


@given(broken() | st.tuples(st.just([]), st.binary(max_size=30)))
def test_any_block_is_refused_or_read_as_the_oracle_does(case) -> None:
    blocks, last = case
    oracle = hpack.Decoder(max_header_list_size=1 << 30)
    decoder = Decoder(4096)
    for block in blocks:
        assert pairs(decoder, block) == [tuple(pair) for pair in oracle.decode(block, raw=True)]
    try:
        expected = [tuple(pair) for pair in oracle.decode(last, raw=True)]
    except hpack.HPACKError:
        with pytest.raises(HpackError):
            decoder.decode(last, ALL, 1000)
        return
    try:
        assert pairs(decoder, last) == expected
    except HpackError as error:
        # The oracle takes integers that are as long as it likes.
        assume("integer" not in str(error))
        raise
    assert table(decoder) == list(oracle.header_table.dynamic_entries)
