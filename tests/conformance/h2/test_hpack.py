"""RFC 7541, section by section: the sidecar's decoder by what it makes of our blocks, its encoder by what we read."""

from __future__ import annotations

import random

import hpack
import pytest

from tests.conformance.h2 import frames
from tests.conformance.h2.case import Case, check, outcome
from tests.conformance.h2.frames import (
    HEADER_TABLE_SIZE,
    headers,
    indexed,
    integer,
    literal,
    request,
    settings,
    string,
    table_size,
)
from tests.conformance.h2.peer import Client
from tests.conformance.h2.stage import Play

GET = request()
BROKEN = "GOAWAY COMPRESSION_ERROR"
HUFFMAN_A = b"\x1f"  # "a" and three bits of padding


def huffman(coded: bytes) -> bytes:
    """A string literal of this Huffman code."""
    return integer(len(coded), 7, 0x80) + coded


def get(more: bytes) -> bytes:
    """A GET with more in its block."""
    return headers(1, GET + more)


def field(name: bytes, value: bytes) -> bytes:
    """A literal from two coded strings."""
    return b"\0" + name + value


CASES = [
    Case("2.3.3 an index beyond both tables", get(indexed(70)), BROKEN),
    Case("2.3.3 the first index of an empty dynamic table", get(indexed(62)), BROKEN),
    Case("2.3.3 an index of 2^31", get(integer(2**31, 7, 0x80)), BROKEN),
    Case("2.3.3 a literal whose name's index is beyond both tables", get(literal(70, b"x")), BROKEN),
    Case("2.3.3 an indexed literal whose name's index is beyond both tables", get(literal(70, b"x", 0x40)), BROKEN),
    Case("2.3.3 a never-indexed literal whose name's index is beyond both tables", get(literal(70, b"x", 0x10)), BROKEN),
    Case("4.1 an entry counts 32 octets beside its text", headers(1, table_size(64) + GET + literal(b"a", b"x" * 31, 0x40) + indexed(62)), "200"),
    Case("4.1 an entry one octet too large", headers(1, table_size(64) + GET + literal(b"a", b"x" * 32, 0x40) + indexed(62)), BROKEN),
    Case("4.2 a table size update behind a field", get(table_size(0)), BROKEN),
    Case("4.2 a table size update between fields", headers(1, indexed(2) + table_size(0) + GET), BROKEN),
    Case("4.2 two table size updates", headers(1, table_size(0) + table_size(4096) + GET), "200"),
    Case("4.3 a smaller table evicts", headers(1, GET + literal(b"x-a", b"1", 0x40)) + headers(3, table_size(0) + GET + indexed(62)), BROKEN, stream=3),
    Case("4.3 a table of 0 and 4096 again is empty", headers(1, GET + literal(b"x-a", b"1", 0x40)) + headers(3, table_size(0) + table_size(4096) + GET + indexed(62)), BROKEN, stream=3),
    Case("4.4 an entry larger than the table empties it", headers(1, table_size(40) + GET + literal(b"a", b"b", 0x40) + literal(b"x-b", b"y" * 100, 0x40)), "200"),
    Case("4.4 and what it held is gone", headers(1, table_size(40) + GET + literal(b"a", b"b", 0x40) + literal(b"x-b", b"y" * 100, 0x40) + indexed(62)), BROKEN),
    Case("4.4 an entry evicts the one that its name refers to", headers(1, table_size(40) + GET + literal(b"a", b"b", 0x40) + literal(62, b"c", 0x40) + indexed(62)), "200"),
    Case("5.1 an integer that never ends", get(b"\xff" + b"\xff" * 40), BROKEN),
    Case("5.1 an integer that is cut off", get(b"\xff"), BROKEN),
    Case("5.1 an integer of 2^64 and more", get(b"\xff" + b"\xff" * 9 + b"\x7f"), BROKEN),
    Case("5.1 a string's length of 2^32", get(b"\0\x7f\xff\xff\xff\xff\x0f"), BROKEN),
    Case("5.1 an integer with a needless octet of zero", get(b"\x0f\x91\x00" + string(b"x")), "200 | " + BROKEN),
    Case("5.1 an integer with many octets of zero", get(b"\x0f\x91" + b"\x80" * 30 + b"\0" + string(b"x")), BROKEN),
    Case("5.2 a string longer than the block", get(b"\0\x0aabc"), BROKEN),
    Case("5.2 a name and no value", get(b"\0" + string(b"x-a")), BROKEN),
    Case("5.2 Huffman-coded strings", get(field(huffman(HUFFMAN_A), huffman(HUFFMAN_A))), "200"),
    Case("5.2 an empty Huffman-coded value", get(field(string(b"x-a"), huffman(b""))), "200"),
    Case("5.2 padding of more than 7 bits", get(field(string(b"x-a"), huffman(HUFFMAN_A + b"\xff"))), BROKEN),
    Case("5.2 padding of zeros", get(field(string(b"x-a"), huffman(b"\x18"))), BROKEN),
    Case("5.2 padding that is not all ones", get(field(string(b"x-a"), huffman(b"\x1b"))), BROKEN),
    Case("5.2 EOS inside", get(field(string(b"x-a"), huffman(b"\xff\xff\xff\xff"))), BROKEN),
    Case("5.2 EOS behind a character", get(field(string(b"x-a"), huffman(b"\x1f\xff\xff\xff\xe0\xff"))), BROKEN),
    Case("5.2 padding of 8 ones and nothing else", get(field(string(b"x-a"), huffman(b"\xff"))), BROKEN),
    Case("6.1 index 0", get(b"\x80"), BROKEN),
    Case("6.1 fields of the static table", headers(1, b"\x82\x86\x84" + literal(1, b"app") + b"".join(indexed(index) for index in (16, 19, 23, 32, 51, 53, 58, 60))), "200"),
    Case("6.2.1 a literal with indexing", get(literal(b"x-a", b"1", 0x40) + indexed(62)), "200"),
    Case("6.2.1 its name from the static table", get(literal(58, b"agent", 0x40)), "200"),
    Case("6.2.1 its name from the dynamic table", get(literal(b"x-a", b"1", 0x40) + literal(62, b"2", 0x40) + indexed(63)), "200"),
    Case("6.2.2 a literal without indexing", get(literal(58, b"agent") + literal(b"x-a", b"1")), "200"),
    Case("6.2.2 adds nothing to the table", get(literal(b"x-a", b"1") + indexed(62)), BROKEN),
    Case("6.2.3 a never-indexed literal", get(literal(58, b"agent", 0x10) + literal(b"x-a", b"1", 0x10)), "200"),
    Case("6.2.3 adds nothing to the table", get(literal(b"x-a", b"1", 0x10) + indexed(62)), BROKEN),
    Case("6.3 a table size of the limit", headers(1, table_size(4096) + GET), "200"),
    Case("6.3 a table size above the limit", headers(1, table_size(4097) + GET), BROKEN),
    Case("6.3 a table size of 2^31", headers(1, table_size(2**31) + GET), BROKEN),
    Case("6.3 a table size of 0", headers(1, table_size(0) + GET), "200"),
    Case("6.3 a table size update and no field", headers(1, table_size(0)), "RST_STREAM PROTOCOL_ERROR | 400"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_decoder(play: Play, case: Case) -> None:
    check(play.client(), case)


def seen_fields(play: Play, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of the one request that the HTTP/1.1 upstream got, by prefix of their names, in order."""
    (seen,) = play.stage.http1.take()
    return [pair for pair in seen.fields if pair[0].startswith(prefix)]


def test_c_3_and_c_4_the_appendix(play: Play) -> None:
    """The three requests of Appendix C on one connection, plain and then Huffman-coded (their :path is a.. /)."""
    for blocks in (
        ("828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865", "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"),
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"),
    ):  # fmt: skip
        client = play.client()
        for number, text in enumerate(blocks):
            client.send(headers(1 + 2 * number, bytes.fromhex(text)))
            assert client.answer(1 + 2 * number).status == 200
        first, second, third = play.stage.http1.take()
        for seen in (first, second, third):
            assert seen.get(b"host") == b"www.example.com"
        assert (first.target, second.target, third.target) == (b"/", b"/", b"/index.html")
        assert second.get(b"cache-control") == b"no-cache"
        assert third.get(b"custom-key") == b"custom-value"


def test_5_2_every_octet_through_huffman(play: Play) -> None:
    """All that a value may hold, and the longest codes among it."""
    client = play.client()
    encoder = hpack.Encoder()
    value = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/"), (b"x-a", value)]
    client.send(headers(1, encoder.encode(fields, huffman=True)))
    assert client.answer(1).status == 200
    assert seen_fields(play, b"x-a") == [(b"x-a", value)]


def test_2_3_2_the_dynamic_table_as_an_encoder_of_another_uses_it(play: Play) -> None:
    """A hundred requests through hpack's encoder with a table that changes its size: all arrive as they were."""
    rng = random.Random(7541)
    client = play.client()
    encoder = hpack.Encoder()
    names = [b"x-%d" % number for number in range(12)]
    values = [bytes(rng.choices(b"abcdefghij 0123456789/;=\xe9", k=rng.randint(1, 60))).strip() for _ in range(40)]
    for number in range(100):
        if rng.random() < 0.15:
            encoder.header_table_size = rng.choice([0, 50, 200, 1000, 4096])
        fields = [(rng.choice(names), rng.choice(values)) for _ in range(rng.randint(0, 12))]
        pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", b"/")]
        client.send(headers(1 + 2 * number, encoder.encode(pseudo + fields, huffman=rng.random() < 0.5)))
        assert client.answer(1 + 2 * number).status == 200
        (seen,) = play.stage.http1.take()
        got = [pair for pair in seen.fields if pair[0] in names]
        assert got == fields


# ---- the sidecar's encoder


def sized(play: Play, size: int) -> Client:
    """A client with that HEADER_TABLE_SIZE, whose decoder insists on it once it is acknowledged."""
    client = play.client((HEADER_TABLE_SIZE, size))
    client.expect(frames.SETTINGS, flags=frames.ACK)
    client._decoder.max_allowed_table_size = size
    return client


@pytest.mark.parametrize("size", [0, 1, 31, 32, 64, 100, 4095])
def test_4_2_the_encoder_keeps_to_a_smaller_table(play: Play, size: int) -> None:
    client = sized(play, size)
    for stream in range(1, 13, 2):
        assert client.ask(stream).status == 200
    assert client._decoder.header_table_size <= size


def test_4_2_the_size_changes_while_the_connection_lives(play: Play) -> None:
    client = play.client(window=1 << 20)
    stream = 1
    for size in (4096, 0, 100, 65_536, 50, 4096, 0, 0, 4096):
        client.send(settings((HEADER_TABLE_SIZE, size)))
        client.expect(frames.SETTINGS, flags=frames.ACK)
        client._decoder.max_allowed_table_size = size
        for _ in range(3):
            assert client.ask(stream).status == 200
            stream += 2


def test_4_2_the_smallest_size_between_is_told(play: Play) -> None:
    """Down and up again before the next block: what was in the table is gone for both."""
    client = play.client()
    assert client.ask(1).status == 200
    client.send(settings((HEADER_TABLE_SIZE, 0)), settings((HEADER_TABLE_SIZE, 4096)))
    client.sync()
    client.send(headers(3, GET))
    client.expect(frames.HEADERS, 3)
    block = client.frames[-1].payload
    assert block[0] & 0xE0 == 0x20, "no table size update at its beginning"
    assert block[0] & 0x1F == 0
    assert client.answer(3).status == 200
    assert client.ask(5).status == 200


def test_6_the_encoder_uses_the_table(play: Play) -> None:
    """What is said again costs an octet or so a field."""
    client = play.client()
    lengths = []
    for stream in range(1, 11, 2):
        assert client.ask(stream).status == 200
        lengths.append(len(client.got(frames.HEADERS, stream)[0].payload))
    assert lengths[-1] < lengths[0] / 2


def never(client: Client, play: Play, name: bytes, first: int) -> list[bytes]:
    """A request with a field, coded with the first octet `first`, to a lane: the names that came never-indexed."""
    lane = play.lane()
    block = request(b"GET", lane.path) + literal(name, b"a secret thing", first)
    client.send(headers(1, block))
    server = lane.accept()
    server.request()
    assert server.streams[1].get(name) == b"a secret thing"
    return server.streams[1].never_indexed


def test_7_1_3_never_indexed_stays_so(play: Play) -> None:
    """§6.2.3: an intermediary must use the same representation."""
    assert b"x-token" in never(play.client(), play, b"x-token", 0x10)


def test_6_2_2_without_indexing_is_not_never(play: Play) -> None:
    assert b"x-plain" not in never(play.client(), play, b"x-plain", 0)


def test_7_1_3_secrets_are_not_put_in_the_table(play: Play) -> None:
    """authorization and cookies: neither indexed for guessing against, nor kept."""
    client, lane = play.client(), play.lane()
    client.send(headers(1, request(b"GET", lane.path, (b"authorization", b"Bearer 1"))))
    server = lane.accept()
    server.request()
    server.respond(1)
    client.answer(1)
    table = [bytes(name) for name, _ in server._decoder.header_table.dynamic_entries]
    assert b"authorization" not in table


def test_7_1_3_never_indexed_in_answers_and_trailers(play: Play) -> None:
    client, server, _ = play.start()
    block = frames.response() + literal(b"x-token", b"secret", 0x10)
    server.send(headers(1, block, frames.END_HEADERS), headers(1, literal(b"x-late", b"secret", 0x10)))
    answer = client.answer(1)
    assert answer.get(b"x-token") == b"secret"
    assert answer.trailers == [(b"x-late", b"secret")]
    assert {b"x-token", b"x-late"} <= set(answer.never_indexed)


@pytest.mark.parametrize("octets", [b"\x82", b"\x40", b"\x00\x03x-a", b"\x3f\xe1\x1f", b"\x80", b"\xbe"])
def test_4_3_a_block_that_ends_too_early_or_is_wrong(play: Play, octets: bytes) -> None:
    client = play.client()
    client.send(headers(1, octets))
    assert outcome(client, 1) in ("GOAWAY COMPRESSION_ERROR", "RST_STREAM PROTOCOL_ERROR", "400")
    assert not play.stage.http1.take()
