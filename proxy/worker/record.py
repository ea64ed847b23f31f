"""What the access log reads of an exchange (telemetry.access_log.Record), computed only if the format asks for it."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from proxy.http.headers import find

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.http.heads import RequestHead, ResponseHead
    from proxy.routing.table import CompiledRoute
    from proxy.telemetry.trace import Trace
    from proxy.worker.downstream import Downstream

_EPOCH: Final = time() - monotonic()


class Record:
    """The base of Exchange, which has the attributes."""

    __slots__ = ()

    if TYPE_CHECKING:
        cluster: ClusterState | None
        downstream: Downstream
        endpoint: Endpoint | None
        head: RequestHead
        request_id: bytes | None
        response_head: ResponseHead | None
        route: CompiledRoute[ClusterState] | None
        started: float
        trace: Trace | None

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
