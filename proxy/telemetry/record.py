"""What an access-log line can tell of one request or connection."""

from __future__ import annotations


class Record:
    """The base of what is logged. Who has nothing to tell of something leaves it: 0, empty or None, logged as absent.

    `started` and `duration` are seconds, `started` on the monotonic clock; bytes are those of bodies.
    """

    __slots__ = ("attempts", "bytes_received", "bytes_sent", "details", "duration", "flags", "started", "status")

    def __init__(self, started: float) -> None:
        self.started = started
        self.duration = 0.0
        self.status = 0
        self.flags = ""
        self.details = ""
        self.attempts = 0
        self.bytes_received = 0
        self.bytes_sent = 0

    def method(self) -> bytes | None:
        return None

    def target(self) -> bytes | None:
        return None

    def authority(self) -> bytes | None:
        return None

    def protocol(self) -> str:
        return ""

    def upstream_host(self) -> str:
        return ""

    def upstream_cluster(self) -> str:
        return ""

    def route_name(self) -> str:
        return ""

    def peer_uri_san(self) -> str:
        return ""

    def trace_id(self) -> str:
        return ""

    def downstream_address(self) -> str:
        return ""

    def direct_address(self) -> str:
        return ""

    def request_header(self, name: bytes) -> bytes | None:
        return None

    def response_header(self, name: bytes) -> bytes | None:
        return None
