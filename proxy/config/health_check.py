"""Active health checks of a cluster (envoy.config.core.v3.HealthCheck)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """HealthCheck.HttpHealthCheck. Statuses are (first, one past the last); `headers` are added to the request."""

    path: str
    host: str = ""  # empty: the cluster's name
    method: str = "GET"
    expected_statuses: tuple[tuple[int, int], ...] = ((200, 201),)
    retriable_statuses: tuple[tuple[int, int], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    http2: bool = False


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """HealthCheck.TcpHealthCheck: `send`, then wait for all of `receive`, in this order, with anything in between."""

    send: bytes = b""
    receive: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """HealthCheck.GrpcHealthCheck: grpc.health.v1.Health/Check of `service`; empty means the server as a whole."""

    service: str = ""
    authority: str = ""  # empty: the cluster's name
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """HealthCheck. Times are seconds; None: as the next field up that is not None."""

    check: HttpCheck | TcpCheck | GrpcCheck
    timeout: float
    interval: float
    unhealthy_threshold: int
    healthy_threshold: int
    initial_jitter: float = 0.0
    interval_jitter: float = 0.0
    interval_jitter_percent: int = 0
    unhealthy_interval: float | None = None  # interval
    unhealthy_edge_interval: float | None = None  # unhealthy_interval
    healthy_edge_interval: float | None = None  # interval
    no_traffic_interval: float = 60.0
    no_traffic_healthy_interval: float | None = None  # no_traffic_interval
    reuse_connection: bool = True
    alt_port: int = 0  # 0: the endpoint's own
    alpn_protocols: tuple[str, ...] = ()  # of tls_options


@dataclass(frozen=True, slots=True)
class EndpointHealthCheck:
    """envoy.config.endpoint.v3.Endpoint.HealthCheckConfig: how one endpoint is checked."""

    port: int = 0  # 0: as the cluster's check says
    hostname: str = ""
    disabled: bool = False
