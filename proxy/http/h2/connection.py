"""What frames do to a connection and its streams, on either side of it (RFC 9113 §5 and §6).

server.py and client.py know what a block of fields means.
"""

from __future__ import annotations

from typing import Final

from proxy.config.http2 import Http2Options
from proxy.http.h2 import frames
from proxy.http.h2.decoder import Decoder, HpackError
from proxy.http.h2.frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    ConnectionFailed,
)
from proxy.http.h2.messages import Malformed, read_trailers
from proxy.http.h2.receiver import Receiver
from proxy.http.h2.stream import Stream
from proxy.http.headers import Field

_MAX_FRAME: Final = 64 * 1024
"""What we send at most in one frame, whatever the peer takes: others wait behind it."""


class Connection(Receiver):
    """The base of ServerConnection and ClientConnection.

    `going_away`: the peer takes no more streams. `pong`: what our last PING was answered with. `peer_streams`: what the
    peer takes at once (SETTINGS_MAX_CONCURRENT_STREAMS); `peer_connect`: it knows extended CONNECT."""

    __slots__ = (
        "_block",
        "_block_end",
        "_decoder",
        "_initial_window",
        "_settings_acked",
        "going_away",
        "max_count",
        "max_size",
        "peer_connect",
        "peer_streams",
        "pong",
    )

    def __init__(self, options: Http2Options, max_size: int, max_count: int) -> None:
        super().__init__(options)
        self.max_size = max_size  # of a head, decoded
        self.max_count = max_count
        self.going_away = False
        self.peer_streams = frames.MAX_STREAM
        self.peer_connect = False
        self.pong = b""
        self._decoder = Decoder(4096)
        self._settings_acked = False
        self._initial_window = options.initial_stream_window_size
        self._block = bytearray()
        self._block_end = False

    # ---- the subclass's

    def _on_block(self, number: int, block: bytes, end: bool) -> None:
        """A complete field block."""
        raise NotImplementedError

    def _on_setting(self, name: int, value: int) -> None:
        """A setting that means something to one side only. Raises ConnectionFailed."""

    def _on_goaway(self, last: int, code: int) -> None:
        """GOAWAY arrived."""

    # ---- frames

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._on_headers(flags, number, payload)
        elif kind == WINDOW_UPDATE:
            self._on_window_update(number, payload)
        elif kind == RST_STREAM:
            self._on_rst_stream(number, payload)
        elif kind == SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == PING:
            self._on_ping(flags, number, payload)
        elif kind == CONTINUATION:
            self._on_continuation(flags, number, payload)
        elif kind == PRIORITY:
            self._on_priority(number, payload)
        elif kind == GOAWAY:
            if number:
                raise ConnectionFailed(PROTOCOL_ERROR, "GOAWAY on a stream (RFC 9113 §6.8)")
            if len(payload) < 8:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "a GOAWAY that is too short (RFC 9113 §6.8)")
            self._guard.control(self.now)
            self._on_goaway(_number(payload, 0) & MAX_WINDOW, _number(payload, 4))
        elif kind == PUSH_PROMISE:
            raise ConnectionFailed(PROTOCOL_ERROR, "PUSH_PROMISE where push is off (RFC 9113 §6.6)")
        else:
            self._guard.control(self.now)  # of an unknown type: ignored (§4.1)

    def _on_window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "a WINDOW_UPDATE of other than 4 octets (RFC 9113 §6.9)")
        self._guard.window_update(self.data_frames)
        increment = _number(payload, 0) & MAX_WINDOW
        if not number:
            if not increment:
                raise ConnectionFailed(PROTOCOL_ERROR, "a WINDOW_UPDATE of 0 (RFC 9113 §6.9)")
            self.send_window += increment
            if self.send_window > MAX_WINDOW:
                raise ConnectionFailed(FLOW_CONTROL_ERROR, "a window above 2^31-1 (RFC 9113 §6.9.1)")
            self._share()
            return
        stream = self.streams.get(number)
        if stream is None:
            if self._idle(number):
                raise ConnectionFailed(PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream (RFC 9113 §5.1)")
        elif not increment:
            self._break(stream, PROTOCOL_ERROR, "a WINDOW_UPDATE of 0 (RFC 9113 §6.9)")
        elif stream.send_window + increment > MAX_WINDOW:
            self._break(stream, FLOW_CONTROL_ERROR, "a window above 2^31-1 (RFC 9113 §6.9.1)")
        else:
            stream.send_window += increment
            self._widened(stream)

    # ---- field blocks (§4.3, §6.2, §6.10)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFailed(PROTOCOL_ERROR, "HEADERS on stream 0 (RFC 9113 §6.2)")
        if flags & (PADDED | PRIORITIZED):
            payload = self._unwrap(flags, number, payload)
        end = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._guard.empties = 0
            self._on_block(number, payload, end)
            return
        if not payload:
            self._guard.empty(False)
        self._block_stream = number
        self._block_end = end
        self._block += payload

    def _unwrap(self, flags: int, number: int, payload: bytes) -> bytes:
        """Without padding and priority."""
        at, end = 0, len(payload)
        if flags & PADDED:
            if not payload:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame without the padding's length (RFC 9113 §6.2)")
            at = 1
            end -= payload[0]
        if flags & PRIORITIZED:
            if len(payload) < at + 5:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "a HEADERS frame too short for its priority (RFC 9113 §6.2)")
            at += 5
        if end < at:
            raise ConnectionFailed(PROTOCOL_ERROR, "padding longer than its frame (RFC 9113 §6.2)")
        return payload[at:end]

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block_stream:
            raise ConnectionFailed(PROTOCOL_ERROR, "CONTINUATION without HEADERS (RFC 9113 §6.10)")
        block = self._block
        block += payload
        self._guard.continuation(len(payload), len(block), self.max_size)
        if flags & END_HEADERS:
            self._block = bytearray()
            self._block_stream = 0
            self._guard.empties = self._guard.continuations = 0
            self._on_block(number, bytes(block), self._block_end)

    def _on_trailers(self, stream: Stream, fields: list[Field], end: bool, underscores: bool) -> None:
        """A second block on a stream."""
        message, request = stream.message, stream.request
        if stream.upgrade or (request is not None and request.head.upgrade):
            self._break(stream, PROTOCOL_ERROR, "HEADERS on a stream that is a tunnel (RFC 9113 §8.5)")
        elif message is None or message.done:
            self._break(stream, STREAM_CLOSED, "HEADERS after the end of the stream (RFC 9113 §5.1)")
        elif not end:
            self._break(stream, PROTOCOL_ERROR, "a trailer section that is not the end (RFC 9113 §8.1)")
        elif self._decoder.overflow:
            self._break(stream, ENHANCE_YOUR_CALM, "a trailer section that is too large")
        elif stream.left > 0:
            self._break(stream, PROTOCOL_ERROR, "content of another length than content-length (RFC 9113 §8.1.1)")
        else:
            try:
                message.trailers = read_trailers(fields, underscores)
            except Malformed as error:
                self._break(stream, PROTOCOL_ERROR, str(error))
                return
            message.sensitive = self._decoder.sensitive
            self._end(stream)

    def _fields(self, block: bytes) -> list[Field]:
        """The fields of a block. All that are within the limits: see `_overflow`."""
        try:
            return self._decoder.decode(block, self.max_size, self.max_count)
        except HpackError as error:
            raise ConnectionFailed(COMPRESSION_ERROR, f"{error} (RFC 9113 §4.3)") from None

    # ---- the rest

    def _on_rst_stream(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "an RST_STREAM of other than 4 octets (RFC 9113 §6.4)")
        if self._idle(number):
            raise ConnectionFailed(PROTOCOL_ERROR, "RST_STREAM on an idle stream (RFC 9113 §6.4)")
        stream = self.streams.get(number)
        if stream is None:
            self._guard.late_reset()
            return
        self._forget(stream)
        stream.reset = _number(payload, 0)
        self._on_reset(stream)
        self._mark(stream)

    def _on_reset(self, stream: Stream) -> None:
        """The peer reset a stream. Raises ConnectionFailed."""

    def _on_priority(self, number: int, payload: bytes) -> None:
        """Ignored (§5.3.2), within a bound."""
        if not number:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY on stream 0 (RFC 9113 §6.3)")
        self._guard.priority()
        if len(payload) != 5:
            self._stream_error(number, FRAME_SIZE_ERROR, "a PRIORITY of other than 5 octets (RFC 9113 §6.3)")
        elif _number(payload, 0) & MAX_WINDOW == number:
            self._stream_error(number, PROTOCOL_ERROR, "a stream that depends on itself (RFC 7540 §5.3.1)")

    def _stream_error(self, number: int, code: int, text: str) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            self._break(stream, code, text)
        elif self._idle(number):
            raise ConnectionFailed(code, text)  # there is nothing to reset yet

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFailed(PROTOCOL_ERROR, "PING on a stream (RFC 9113 §6.7)")
        if len(payload) != 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "a PING of other than 8 octets (RFC 9113 §6.7)")
        self._guard.ping(self.now, self.data_frames)
        if flags & ACK:
            self.pong = payload
        else:
            self._control(frames.ping(payload, True))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS on a stream (RFC 9113 §6.5)")
        if flags & ACK:
            if payload:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "an acknowledgement with settings (RFC 9113 §6.5)")
            self._guard.control(self.now)
            if not self._settings_acked:
                self._acknowledged()
            return
        if len(payload) % 6:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "SETTINGS of no multiple of 6 octets (RFC 9113 §6.5)")
        self._guard.settings(self.now, len(payload) // 6)
        self._settings_seen = True
        at = 0
        while at < len(payload):
            self._set((payload[at] << 8) | payload[at + 1], _number(payload, at + 2))
            at += 6
        self._control(frames.SETTINGS_ACK)

    def _set(self, name: int, value: int) -> None:
        if name == frames.HEADER_TABLE_SIZE:
            self.encoder.limit(value)
        elif name == frames.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ConnectionFailed(FLOW_CONTROL_ERROR, "a window above 2^31-1 (RFC 9113 §6.5.2)")
            self._guard.resize(self.now, len(self.streams))
            self._resize(value - self.peer_window)
            self.peer_window = value
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME_SIZE <= value < 2**24:
                raise ConnectionFailed(PROTOCOL_ERROR, "a SETTINGS_MAX_FRAME_SIZE out of range (RFC 9113 §6.5.2)")
            self.peer_frame_size = min(value, _MAX_FRAME)
        elif name == frames.MAX_CONCURRENT_STREAMS:
            self.peer_streams = value
        else:
            self._on_setting(name, value)

    def _resize(self, delta: int) -> None:
        """The peer changed the size of all streams' windows, which may become negative (§6.9.2)."""
        for stream in list(self.streams.values()):
            stream.send_window += delta
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFailed(FLOW_CONTROL_ERROR, "a window above 2^31-1 (RFC 9113 §6.9.2)")
            if delta > 0:
                self._widened(stream)

    def _acknowledged(self) -> None:
        """The peer keeps to our settings from now on."""
        self._settings_acked = True
        self._decoder.limit(self._options.hpack_table_size)
        shrunk = frames.DEFAULT_WINDOW - self._initial_window
        if shrunk > 0:
            for stream in self.streams.values():
                stream.receive_window -= shrunk

    def _new_window(self) -> int:
        """What the peer may send on a new stream. Before it knows our settings it takes the default."""
        return self._initial_window if self._settings_acked else max(self._initial_window, frames.DEFAULT_WINDOW)

    def _greeting(self, settings: list[tuple[int, int]]) -> None:
        """Our SETTINGS, and the connection's window."""
        options = self._options
        if options.hpack_table_size != 4096:
            settings.append((frames.HEADER_TABLE_SIZE, options.hpack_table_size))
        settings.append((frames.INITIAL_WINDOW_SIZE, options.initial_stream_window_size))
        settings.append((frames.MAX_HEADER_LIST_SIZE, self.max_size))
        self.out.append(frames.settings(settings))
        more = options.initial_connection_window_size - frames.DEFAULT_WINDOW
        if more > 0:
            self.out.append(frames.window_update(0, more))
            self.receive_window += more


def _number(payload: bytes, at: int) -> int:
    return (payload[at] << 24) | (payload[at + 1] << 16) | (payload[at + 2] << 8) | payload[at + 3]
