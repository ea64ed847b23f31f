"""The state of an exchange, and what the access log reads of it (telemetry.record)."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from proxy.http.head_policy import forwarded_client
from proxy.http.headers import find
from proxy.telemetry.record import Record

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.http.heads import RequestHead, RequestMessage, ResponseHead
    from proxy.policy.balance import Context
    from proxy.routing.table import CompiledRoute
    from proxy.telemetry.trace import Trace
    from proxy.worker.carrier import Carrier
    from proxy.worker.client import Client
    from proxy.worker.faults import Injection
    from proxy.worker.filtering import Filtering
    from proxy.worker.tables import ListenerState


class ExchangeRecord(Record):
    """The base of Exchange: its state, and what the access log reads of it."""

    __slots__ = (
        "_body_size",
        "_replay",
        "_retries",
        "_retrying",
        "_stale_retried",
        "_tried",
        "_waited",
        "cluster",
        "context",
        "downstream",
        "ended",
        "endpoint",
        "filtering",
        "grpc",
        "grpc_deadline",
        "grpc_status",
        "head",
        "injection",
        "message",
        "request_deadline",
        "request_id",
        "response_head",
        "response_started",
        "route",
        "state",
        "stream_deadline",
        "trace",
        "tried_at",
        "try_deadline",
        "tunnel",
        "upstream",
        "waiting",
    )

    def __init__(self, downstream: Client, state: ListenerState, message: RequestMessage) -> None:
        super().__init__(monotonic())
        self.downstream = downstream
        self.state = state
        self.message = message
        self.head: RequestHead = message.head
        self.request_deadline = 0.0
        self.stream_deadline = 0.0
        self.try_deadline = 0.0
        self.grpc = False
        self.grpc_deadline = 0.0  # what grpc-timeout says
        self.grpc_status = b""
        self.route: CompiledRoute[ClusterState] | None = None
        self.filtering: Filtering | None = None
        self.injection: Injection | None = None
        self.cluster: ClusterState | None = None
        self.endpoint: Endpoint | None = None
        self.context: Context | None = None
        self.tried_at = 0.0  # of the try that waits for its answer, where that is measured
        self.upstream: Carrier | None = None
        self.waiting = False
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

    def method(self) -> bytes | None:
        return self.head.method

    def target(self) -> bytes | None:
        return self.head.target

    def authority(self) -> bytes | None:
        return self.head.authority

    def protocol(self) -> str:
        if self.downstream.multiplexed:
            return "HTTP/2"
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

    def upstream_host(self) -> str:
        return self.endpoint.text if self.endpoint is not None else ""

    def upstream_cluster(self) -> str:
        return self.cluster.name if self.cluster is not None else ""

    def route_name(self) -> str:
        return self.route.name if self.route is not None else ""

    def peer_uri_san(self) -> str:
        return self.downstream.peer_uri

    def trace_id(self) -> str:
        return self.trace.trace_id.decode() if self.trace is not None else ""

    def downstream_address(self) -> str:
        """The client's, as far as x-forwarded-for is to be believed."""
        return forwarded_client(self.head.headers, self.state.xff_index) or self.downstream.address

    def direct_address(self) -> str:
        return self.downstream.address
