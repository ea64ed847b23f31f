"""What one side of an HTTP/2 connection keeps to (envoy.config.core.v3.Http2ProtocolOptions, KeepaliveSettings)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Http2Options:
    """envoy.config.core.v3.Http2ProtocolOptions, of a listener (towards its clients) or of a cluster (towards its
    endpoints). Sizes are octets, times are seconds; limits on what a peer sends are per connection.

    Defaults are Envoy's, but for the two windows: Envoy's are 16 MiB a stream and 24 MiB a connection. A window is what
    a peer may make this process hold for a receiver that does not read; 256 KiB is enough for full speed at a round
    trip of a millisecond, and a thousand stalled streams then cost megabytes, not gigabytes.
    """

    # The dynamic table of the peer's encoder (SETTINGS_HEADER_TABLE_SIZE), and the most that ours uses.
    hpack_table_size: int = 4096
    # Of the peer at once on a listener; of ours on one connection to an endpoint, which may ask for fewer.
    max_concurrent_streams: int = 1024
    initial_stream_window_size: int = 256 * 1024
    initial_connection_window_size: int = 16 * 1024 * 1024
    # Extended CONNECT (RFC 8441).
    allow_connect: bool = False
    # Frames that wait for a peer that does not read: all, and those that it caused (PING, SETTINGS, RST_STREAM).
    max_outbound_frames: int = 10_000
    max_outbound_control_frames: int = 1_000
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    # Envoy: more PRIORITY frames than this number × (1 + streams opened) end the connection.
    max_inbound_priority_frames_per_stream: int = 100
    # Envoy: more WINDOW_UPDATE frames than 5 + 2 × (streams opened + this number × DATA frames sent) end it.
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    # PING every so often; 0: never. `keepalive_timeout` is how long the answer may take.
    keepalive_interval: float = 0.0
    keepalive_timeout: float = 0.0
    # A random share of the interval, in percent, by which a PING is later.
    keepalive_jitter: float = 15.0
    # A connection idle for so long gets a PING before its next stream; 0: never.
    keepalive_idle: float = 0.0


HTTP2_DEFAULTS = Http2Options()
"""What holds where a configuration says nothing."""
