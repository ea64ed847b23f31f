"""What the access log reads of a TCP connection."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from proxy.telemetry.record import Record

if TYPE_CHECKING:
    from proxy.worker.tcp_connection import TcpConnection


class TcpRecord(Record):
    """What the access log tells of a connection: of HTTP's operators, nothing."""

    __slots__ = ("_connection",)

    def __init__(self, connection: TcpConnection) -> None:
        super().__init__(connection.started)
        self._connection = connection
        self.duration = monotonic() - connection.started
        self.flags = connection.flags
        self.details = connection.details
        self.attempts = connection.attempts
        self.bytes_received = connection.bytes_received
        self.bytes_sent = connection.bytes_sent

    def upstream_host(self) -> str:
        endpoint = self._connection.endpoint
        return endpoint.text if endpoint is not None else ""

    def upstream_cluster(self) -> str:
        cluster = self._connection.cluster
        return cluster.name if cluster is not None else ""

    def peer_uri_san(self) -> str:
        return self._connection.peer_uri_san

    def downstream_address(self) -> str:
        return self._connection.downstream_address

    def direct_address(self) -> str:
        return self._connection.downstream_address
