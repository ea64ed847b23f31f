"""HTTP/2 as the mesh speaks it, on listeners and to clusters."""

from __future__ import annotations

from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions, KeepaliveSettings
from google.protobuf.duration_pb2 import Duration

KEEPALIVE_INTERVAL = 30  # seconds
KEEPALIVE_TIMEOUT = 10  # seconds


def beside_an_app() -> Http2ProtocolOptions:
    """On this machine, where a peer that is gone is known at once. WebSocket passes (RFC 8441)."""
    return Http2ProtocolOptions(allow_connect=True)


def between_sidecars() -> Http2ProtocolOptions:
    """Over the network. Calls may be silent for hours: only a PING tells that the machine at the other end is gone."""
    options = beside_an_app()
    options.connection_keepalive.CopyFrom(
        KeepaliveSettings(
            interval=Duration(seconds=KEEPALIVE_INTERVAL),
            timeout=Duration(seconds=KEEPALIVE_TIMEOUT),
        )
    )
    return options
