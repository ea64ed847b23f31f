"""The state of an exchange, and what the access log reads of it (telemetry.access_log.Record)."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from proxy.http.headers import find

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.http.heads import RequestHead, RequestMessage, ResponseHead
    from proxy.routing.table import CompiledRoute
    from proxy.telemetry.trace import Trace
    from proxy.worker.downstream import Downstream
    from proxy.worker.tables import ListenerState
    from proxy.worker.upstream import Upstream

_EPOCH: Final = time() - monotonic()


class Record:
    """The base of Exchange: its state, and what the access log reads of it."""

    __slots__ = (
        "_body_size",
        "_replay",
        "_retries",
        "_retrying",
        "_stale_retried",
        "_tried",
        "_waited",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "cluster",
        "details",
        "downstream",
        "duration",
        "ended",
        "endpoint",
        "flags",
        "head",
        "message",
        "request_deadline",
        "request_id",
        "response_head",
        "response_started",
        "route",
        "started",
        "state",
        "status",
        "trace",
        "tunnel",
        "upstream",
        "waiting",
    )

    def __init__(self, downstream: Downstream, state: ListenerState, message: RequestMessage) -> None:
        self.downstream = downstream
        self.state = state
        self.message = message
        self.head: RequestHead = message.head
        self.started = monotonic()
        self.duration = 0.0
        self.request_deadline = 0.0
        self.route: CompiledRoute[ClusterState] | None = None
        self.cluster: ClusterState | None = None
        self.endpoint: Endpoint | None = None
        self.upstream: Upstream | None = None
        self.waiting = False
        self.attempts = 0
        self.status = 0
        self.flags = ""
        self.details = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.request_id = self.head.request_id
        self.trace: Trace | None = None
        self.response_head: ResponseHead | None = None
        self.response_started = False
        self.ended = False
        self.tunnel = False
        self._tried: tuple[Endpoint, ...] = ()
        self._replay: list[bytes] | None = None
        self._body_size = 0
        self._waited = 0
        self._retries = 0
        self._retrying = False
        self._stale_retried = False

    @property
    def start_time(self) -> float:
        return self.started + _EPOCH

    @property
    def protocol(self) -> str:
        return "HTTP/1.0" if self.head.http10 else "HTTP/1.1"

    def request_header(self, name: bytes) -> bytes | None:
        """As this hop sent it on: its own request id and trace in place of the client's."""
        if name == b"x-request-id":
            return self.request_id
        if name == b"traceparent" and self.trace is not None:
            return self.trace.traceparent()
        return self.head.find(name) or None

    def response_header(self, name: bytes) -> bytes | None:
        return find(self.response_head.headers, name) if self.response_head is not None else None

    @property
    def upstream_host(self) -> str:
        return self.endpoint.text if self.endpoint is not None else ""

    @property
    def upstream_cluster(self) -> str:
        return self.cluster.name if self.cluster is not None else ""

    @property
    def route_name(self) -> str:
        return self.route.name if self.route is not None else ""

    @property
    def peer_uri_san(self) -> str:
        return self.downstream.peer_uri

    @property
    def trace_id(self) -> str:
        return self.trace.trace_id.decode() if self.trace is not None else ""

    @property
    def downstream_address(self) -> str:
        return self.downstream.address
