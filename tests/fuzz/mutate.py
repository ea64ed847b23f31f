"""Sequences of frames, good ones and such that were damaged: by frames, by their fields, by octets."""

from __future__ import annotations

import random
from collections.abc import Callable

import hpack

from tests.conformance.h2 import frames
from tests.conformance.h2.frames import END_HEADERS, END_STREAM, PREFACE, Frame

_NAMES = [b"x-a", b"accept", b"cookie", b"content-type", b"grpc-timeout", b"te", b"date", b"server", b"user-agent", b"host",
          b"content-length", b"x-request-id", b"traceparent", b"expect", b"x-b_c", b"authorization"]  # fmt: skip
_VALUES = [b"", b"1", b"trailers", b"a=b; c=d", b"app", b"x" * 200, b"5", b"100-continue", b"\xe4\xf6", b"text/plain",
           b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"0", b"10S"]  # fmt: skip
_PIECES = [b"\0", b"\xff", b"\x80", b"\x40", b"\x20", b"\x3f\xe1\x1f", b"\xbe", b"\x7f\xff\xff\xff\xff\x0f", b"\r\n", b"\x82",
           b"\x0f\xff", b"\x00\x01X\x01y", b"\x00\x05:path\x01/", b"\x1f\x1f"]  # fmt: skip


class Maker:
    """Makes sequences of one side's frames, the same for the same seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.encoder = hpack.Encoder()

    def fields(self, count: int) -> list[hpack.HeaderTuple]:
        """Ordinary fields, some never indexed."""
        rng = self.rng
        kind = [hpack.HeaderTuple, hpack.HeaderTuple, hpack.NeverIndexedHeaderTuple]
        return [rng.choice(kind)(rng.choice(_NAMES), rng.choice(_VALUES)) for _ in range(count)]

    def plain(self, count: int) -> list[hpack.HeaderTuple]:
        """Fields that are as good in a head as in trailers."""
        return [hpack.HeaderTuple(b"x-%d" % self.rng.randrange(9), self.rng.choice(_VALUES[5:7])) for _ in range(count)]

    def blocks(self, stream: int, fields: list[hpack.HeaderTuple], end: bool) -> bytes:
        """HEADERS, at times in several frames, padded or with priority."""
        rng = self.rng
        if rng.random() < 0.1:
            self.encoder.header_table_size = rng.choice([0, 100, 4096])
        block = self.encoder.encode(fields, huffman=rng.random() < 0.5)
        flags = END_STREAM if end else 0
        pad = rng.choice([None, None, 0, 7])
        priority = rng.choice([None, None, frames.priority_fields(0, 3)])
        if rng.random() < 0.7 or len(block) < 3:
            return frames.headers(stream, block, flags | END_HEADERS, pad, priority)
        cut = rng.randrange(1, len(block))
        return frames.headers(stream, block[:cut], flags, pad, priority) + frames.continuation(stream, block[cut:])

    def content(self, stream: int, end: bool) -> bytes:
        """DATA."""
        rng = self.rng
        payload = bytes(rng.choices(b"abc\0\xff", k=rng.choice([1, 5, 100, 1000])))
        return frames.data(stream, payload, END_STREAM if end else 0, rng.choice([None, None, 0, 9, 255]))

    def control(self, stream: int) -> bytes:
        """A frame beside the messages."""
        rng = self.rng
        return rng.choice([
            frames.ping(rng.randbytes(8)),
            frames.ping(rng.randbytes(8), frames.ACK),
            frames.settings((frames.INITIAL_WINDOW_SIZE, rng.choice([0, 1, 65_535, 1 << 20]))),
            frames.settings((frames.HEADER_TABLE_SIZE, rng.choice([0, 100, 4096]))),
            frames.settings((frames.MAX_FRAME_SIZE, 1 << 14), (0x99, 1)),
            frames.SETTINGS_ACK,
            frames.window_update(0, rng.randrange(1, 1000)),
            frames.window_update(stream, rng.randrange(1, 1000)),
            frames.priority(stream),
            frames.frame(0xEE, rng.randrange(256), stream, rng.randbytes(5)),
        ])  # fmt: skip

    def requests(self) -> list[bytes]:
        """What a good client sends: preface and SETTINGS, then some requests, their frames interleaved."""
        rng = self.rng
        queues = [self._message(1 + 2 * number, self._request) for number in range(rng.randint(1, 4))]
        return [PREFACE + frames.settings(), *self._interleave(queues)]

    def responses(self, streams: int = 4) -> list[bytes]:
        """What a good server sends for requests on streams 1, 3, ..."""
        queues = [self._message(1 + 2 * number, self._response) for number in range(streams)]
        return [frames.settings(), *self._interleave(queues)]

    def _interleave(self, queues: list[list[bytes]]) -> list[bytes]:
        # Streams begin in order, and blocks are encoded in the order in which they are sent: so only what is not a
        # block changes places.
        rng = self.rng
        sent = [part for queue in queues for part in queue]
        for _ in range(rng.randint(0, 4)):
            sent.insert(rng.randrange(len(sent) + 1), self.control(1))
        return sent

    def _request(self) -> list[hpack.HeaderTuple]:
        rng = self.rng
        method = rng.choice([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS"])
        pseudo = [
            (b":method", method),
            (b":scheme", b"http"),
            (b":authority", b"app"),
            (b":path", b"/%d" % rng.randrange(9)),
        ]
        return [hpack.HeaderTuple(*pair) for pair in pseudo]

    def _response(self) -> list[hpack.HeaderTuple]:
        return [hpack.HeaderTuple(b":status", self.rng.choice([b"200", b"200", b"404", b"503"]))]

    def _message(self, stream: int, first: Callable[[], list[hpack.HeaderTuple]]) -> list[bytes]:
        rng = self.rng
        parts: list[bytes] = []
        chunks = rng.choice([0, 0, 1, 3])
        trailers = chunks > 0 and rng.random() < 0.3
        more = self.fields(rng.randint(0, 5)) if rng.random() < 0.5 else self.plain(rng.randint(0, 5))
        parts.append(self.blocks(stream, first() + more, end=not chunks))
        parts += [self.content(stream, end=number == chunks - 1 and not trailers) for number in range(chunks)]
        if trailers:
            parts.append(self.blocks(stream, self.plain(2), end=True))
        if rng.random() < 0.15:
            parts.append(frames.rst_stream(stream, rng.randrange(14)))
        return parts


def split(data: bytes) -> list[Frame]:
    """Whole frames of well-formed bytes."""
    buffer = bytearray(data)
    found = []
    while (one := frames.parse(buffer)) is not None:
        found.append(one)
    return found


def join(sequence: list[Frame]) -> bytes:
    """Back to bytes."""
    return b"".join(frames.frame(one.kind, one.flags, one.stream, one.payload) for one in sequence)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A sequence with one to four changes. A preface stays mostly as it is."""
    preface = b""
    if data.startswith(PREFACE):
        preface, data = PREFACE, data[len(PREFACE) :]
    sequence = split(data)
    for _ in range(rng.randint(1, 4)):
        if sequence:
            _change(sequence, rng)
    whole = join(sequence)
    if rng.random() < 0.25:
        whole = _octets(whole, rng)
    if rng.random() < 0.02:
        preface = _octets(preface, rng)
    return preface + whole


def _change(sequence: list[Frame], rng: random.Random) -> None:
    at = rng.randrange(len(sequence))
    one = sequence[at]
    kind, flags, stream, payload = one.kind, one.flags, one.stream, one.payload
    what = rng.randrange(12)
    if what == 0:
        del sequence[at]
        return
    if what == 1:
        sequence.insert(rng.randrange(len(sequence) + 1), one)
        return
    if what == 2:
        other = rng.randrange(len(sequence))
        sequence[at], sequence[other] = sequence[other], one
        return
    if what == 3:
        kind = rng.choice([*range(10), 0xEE])
    elif what == 4:
        flags ^= 1 << rng.randrange(8)
    elif what == 5:
        stream = rng.choice([0, 1, 2, 3, 5, 7, 99, 2**31 - 1, 2**31 | 1])
    elif what == 6:
        payload = payload[: rng.randrange(len(payload) + 1)]
    elif what == 7:
        payload += rng.randbytes(rng.choice([1, 5, 300, 16_400]))
    elif what == 8:
        place = rng.randrange(len(payload) + 1)
        payload = payload[:place] + rng.choice(_PIECES) + payload[place:]
    elif what == 9:
        payload = rng.choice([b"\0" * 4, b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff", b"", b"\0\4\xff\xff\xff\xff"])
    elif what == 10:
        sequence[at:at] = [one] * rng.choice([2, 10, 70])
        return
    else:
        payload = _octets(payload, rng)
    sequence[at] = Frame(kind, flags, stream, payload)


def _octets(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)
