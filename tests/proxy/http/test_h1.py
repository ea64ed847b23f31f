"""Properties of the HTTP/1.1 readers: how the bytes are cut does not matter, and what is written is read alike."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.h1.fields import ProtocolError
from proxy.http.h1.request import RequestReader
from proxy.http.h1.response import ResponseReader
from proxy.http.h1.write import chunk_bytes, last_chunk, request_bytes, response_bytes
from proxy.http.heads import CHUNKED, NO_UPGRADE, RequestHead, RequestMessage, ResponseHead

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-!#$%&'*+.^_`|~", min_size=1, max_size=12).map(str.encode)
PATH = st.text("ab/.%?=&~", max_size=12).map(str.encode)
HOST = st.text("abcdefghijklmnopqrstuvwxyz0123456789-!$&'*+._~", min_size=1, max_size=12).map(str.encode)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(str.encode)
HEADERS = st.lists(st.tuples(TOKEN.map(lambda name: b"x-" + name), VALUE), max_size=8)
BODY = st.lists(st.binary(min_size=1, max_size=50), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, tuple[object, ...]]:
    """A request as bytes, and what a reader must make of it."""
    head = RequestHead(draw(st.sampled_from([b"GET", b"POST", b"PUT"])), b"/" + draw(PATH), draw(HOST), draw(HEADERS))
    chunks, trailers = draw(BODY), []
    if draw(st.booleans()):
        head.length = CHUNKED
        trailers = draw(HEADERS)
        wire = b"".join(chunk_bytes([chunk]) for chunk in chunks) + last_chunk(trailers)
    else:
        head.length = sum(map(len, chunks))
        wire = b"".join(chunks)
    expected = (head.method, head.target, head.authority, head.headers, head.length, b"".join(chunks), trailers)
    return request_bytes(head, head.target, head.authority, b"") + wire, expected


def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    at = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=10))})
    return [data[start:end] for start, end in pairwise(at)]


def feed(reader: RequestReader, piece: bytes, messages: list[RequestMessage]) -> None:
    """Feed a piece, and take every message that is complete then."""
    reader.feed(piece)
    while reader.message is not None and reader.message.done:
        messages.append(reader.message)
        reader.next()


def read(pieces: list[bytes]) -> list[tuple[object, ...]]:
    reader = RequestReader(60 * 1024, 100)
    messages: list[RequestMessage] = []
    for piece in pieces:
        feed(reader, piece, messages)
    return [
        (m.head.method, m.head.target, m.head.authority, m.head.headers, m.head.length, b"".join(m.body), m.trailers)
        for m in messages
    ]


@given(st.data())
def test_any_split_of_written_requests_reads_back(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(requests(), min_size=1, max_size=4))
    wire = b"".join(wire for wire, _ in drawn)
    pieces = data.draw(st.composite(cut)(wire))
    assert read(pieces) == [expected for _, expected in drawn]


@given(st.data(), st.integers(200, 599).filter(lambda s: s not in (204, 304)), HEADERS, BODY, st.booleans())
def test_any_split_of_a_written_response_reads_back(
    data: st.DataObject, status: int, headers: list[tuple[bytes, bytes]], chunks: list[bytes], chunked: bool
) -> None:
    head = ResponseHead(status, b"Whatever", headers)
    if chunked:
        framing = b"transfer-encoding: chunked\r\n"
        body = b"".join(chunk_bytes([chunk]) for chunk in chunks) + last_chunk([(b"x-t", b"1")])
    else:
        framing = b"content-length: %d\r\n" % sum(map(len, chunks))
        body = b"".join(chunks)
    reader = ResponseReader(60 * 1024, 100)
    for _ in range(2):  # and the connection is good for another
        reader.expect(b"GET", NO_UPGRADE)
        for piece in data.draw(st.composite(cut)(response_bytes(head, framing, b"") + body)):
            reader.feed(piece)
        message = reader.message
        assert message is not None
        assert message.done
        assert (message.head.status, message.head.reason, message.head.headers) == (status, b"Whatever", headers)
        assert b"".join(message.body) == b"".join(chunks)
        assert message.trailers == ([(b"x-t", b"1")] if chunked else [])


GARBAGE = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from(
            [b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"host: a\r\n", b"\r\n", b"\r", b"\n", b" ", b"content-length: 3\r\n",
             b"transfer-encoding: chunked\r\n", b"abc", b"3\r\n", b"0\r\n", b";e=1", b"x: y\r\n", b"x" * 600, b"\x00", b"\t", b":"]
        ),
        max_size=14,
    ).map(b"".join),
)  # fmt: skip


@given(GARBAGE, st.data())
def test_garbage_is_refused_the_same_however_it_is_cut(garbage: bytes, data: st.DataObject) -> None:
    def outcome(pieces: list[bytes]) -> tuple[int, bool]:
        reader = RequestReader(1000, 20)
        messages: list[RequestMessage] = []
        try:
            for piece in pieces:
                feed(reader, piece, messages)
        except ProtocolError:
            return len(messages), True
        return len(messages), False

    wire = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" + garbage
    assert outcome([wire]) == outcome(data.draw(st.composite(cut)(wire)))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 204 OK\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_answers_that_a_client_must_not_believe(answer: bytes) -> None:
    reader = ResponseReader(60 * 1024, 100)
    reader.expect(b"GET", NO_UPGRADE)
    with pytest.raises(ProtocolError):
        reader.feed(answer)


@pytest.mark.parametrize("cut_at", [10_000, 40])
def test_a_second_answer_leaves_the_first_as_it_is(cut_at: int) -> None:
    answers = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx" * 2
    reader = ResponseReader(60 * 1024, 100)
    reader.expect(b"GET", NO_UPGRADE)
    reader.feed(answers[:cut_at])
    reader.feed(answers[cut_at:])
    assert reader.excess
    assert reader.message is not None
    assert reader.message.body == [b"x"]


def test_an_answer_nobody_asked_for() -> None:
    reader = ResponseReader(60 * 1024, 100)
    reader.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert reader.excess
    assert reader.message is None
