"""Http2ProtocolOptions (envoy.config.core.v3), and which HTTP an upstream speaks (HttpProtocolOptions of
envoy.extensions.upstreams.http.v3)."""

from __future__ import annotations

from typing import Literal

from proxy.agent.decode.reader import Reader
from proxy.config.http2 import HTTP2_DEFAULTS, Http2Options

UpstreamProtocol = Literal["HTTP1", "HTTP2", "DOWNSTREAM"]

_UINT31 = 2**31 - 1
_UINT32 = 2**32 - 1
_MIN_WINDOW = 65_535
_MILLISECOND = 0.001


def read_http2_options(reader: Reader | None) -> Http2Options:
    """The options of a message field; the defaults when it is not set. Ranges are the proto's own validation rules."""
    default = HTTP2_DEFAULTS
    if reader is None:
        return default
    _invalid_messages(reader)
    ping = reader.child("connection_keepalive")
    interval, timeout, jitter, idle = _keepalive(ping) if ping else (0.0, 0.0, default.keepalive_jitter, 0.0)
    return Http2Options(
        hpack_table_size=reader.integer("hpack_table_size", default.hpack_table_size, 0, _UINT32),
        max_concurrent_streams=reader.integer("max_concurrent_streams", default.max_concurrent_streams, 1, _UINT31),
        initial_stream_window_size=_window(reader, "initial_stream_window_size", default.initial_stream_window_size),
        initial_connection_window_size=_window(
            reader, "initial_connection_window_size", default.initial_connection_window_size
        ),
        allow_connect=reader.value("allow_connect"),
        max_outbound_frames=reader.integer("max_outbound_frames", default.max_outbound_frames, 1, _UINT32),
        max_outbound_control_frames=reader.integer(
            "max_outbound_control_frames", default.max_outbound_control_frames, 1, _UINT32
        ),
        max_consecutive_inbound_frames_with_empty_payload=reader.wrapped(
            "max_consecutive_inbound_frames_with_empty_payload",
            default.max_consecutive_inbound_frames_with_empty_payload,
        ),
        max_inbound_priority_frames_per_stream=reader.wrapped(
            "max_inbound_priority_frames_per_stream", default.max_inbound_priority_frames_per_stream
        ),
        max_inbound_window_update_frames_per_data_frame_sent=reader.integer(
            "max_inbound_window_update_frames_per_data_frame_sent",
            default.max_inbound_window_update_frames_per_data_frame_sent,
            1,
            _UINT32,
        ),
        keepalive_interval=interval,
        keepalive_timeout=timeout,
        keepalive_jitter=jitter,
        keepalive_idle=idle,
    )


def read_upstream_protocol(options: Reader) -> tuple[UpstreamProtocol, Http2Options]:
    """What HttpProtocolOptions.upstream_protocol_options says, which every such message must."""
    if options.which("upstream_protocol_options") == "auto_config":
        options.opaque("auto_config")
        options.error(
            "choosing by ALPN for each connection is not supported; say explicit_http_config or "
            "use_downstream_protocol_config",
            "auto_config",
        )
        return "HTTP1", HTTP2_DEFAULTS
    kind = options.one_of("upstream_protocol_options", "explicit_http_config", "use_downstream_protocol_config")
    inner = options.child(kind) if kind else None
    if inner is None:
        return "HTTP1", HTTP2_DEFAULTS
    if kind == "explicit_http_config":
        chosen = inner.one_of("protocol_config", "http_protocol_options", "http2_protocol_options")
        inner.child("http_protocol_options")
        http2 = read_http2_options(inner.child("http2_protocol_options"))
        return ("HTTP2" if chosen == "http2_protocol_options" else "HTTP1"), http2
    inner.child("http_protocol_options")
    return "DOWNSTREAM", read_http2_options(inner.child("http2_protocol_options"))


def _window(reader: Reader, name: str, default: int) -> int:
    return reader.integer(name, default, _MIN_WINDOW, _UINT31)


def _invalid_messages(reader: Reader) -> None:
    """An invalid message ends its stream alone here, always. Envoy can end the connection, and does so by default."""
    reader.value("stream_error_on_invalid_http_messaging")  # deprecated; false cannot be told from absent
    if not reader.wrapped("override_stream_error_on_invalid_http_message", True):
        reader.unsupported(
            "false is not supported: an invalid message ends its stream, not the connection",
            "override_stream_error_on_invalid_http_message",
        )


def _keepalive(reader: Reader) -> tuple[float, float, float, float]:
    """KeepaliveSettings: (interval, timeout, jitter in percent, idle interval)."""
    jitter = HTTP2_DEFAULTS.keepalive_jitter
    percent = reader.child("interval_jitter")
    if percent is not None:
        jitter = percent.value("value")
        if not 0 <= jitter <= 100:
            percent.error(f"must be within 0 and 100, not {jitter:g}", "value")
    if not reader.has("timeout"):
        reader.error("is required", "timeout")
    interval, timeout, idle = (_ping_time(reader, name) for name in ("interval", "timeout", "connection_idle_interval"))
    return interval, timeout, jitter, idle


def _ping_time(reader: Reader, name: str) -> float:
    given = reader.seconds(name, 0.0)
    if reader.has(name) and 0 <= given < _MILLISECOND:
        reader.error(f"must be at least 0.001s, not {given:g}s", name)
    return given
