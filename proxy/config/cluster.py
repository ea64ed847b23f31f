"""Clusters and their endpoints (envoy.config.cluster.v3, envoy.config.endpoint.v3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.config.balance import LB_DEFAULTS, NO_LOCALITY, LbPolicy, LoadBalancing, Locality, Metadata
from proxy.config.health_check import EndpointHealthCheck, HealthCheck
from proxy.config.http2 import HTTP2_DEFAULTS, Http2Options
from proxy.config.model import Address, UpstreamTls


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    """envoy.config.cluster.v3.CircuitBreakers, the DEFAULT priority's thresholds."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """envoy.config.cluster.v3.OutlierDetection, with its names and defaults. Percentages are 0 to 100; times seconds;
    success_rate_stdev_factor is in thousandths; a number in a row of 0 is never reached."""

    consecutive_5xx: int = 5
    enforcing_consecutive_5xx: int = 100
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    failure_percentage_threshold: int = 85
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_time_jitter: float = 0.0
    max_ejection_percent: int = 10
    always_eject_one_host: bool = False
    successful_active_health_check_uneject_host: bool = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """envoy.config.cluster.v3.Cluster.

    Endpoints always come from the snapshot's load assignment named `load_assignment`: inline ones (STATIC), the
    agent's DNS answers (STRICT_DNS), or an EDS resource (eds service_name, else the cluster's name).
    """

    name: str
    discovery: Literal["STATIC", "STRICT_DNS", "EDS"]
    load_assignment: str
    connect_timeout: float = 5.0
    lb_policy: LbPolicy = "ROUND_ROBIN"
    tls: UpstreamTls | None = None
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    outlier_detection: OutlierDetection | None = None
    idle_timeout: float = 3600.0
    max_requests_per_connection: int = 0
    # 0: no limit. A connection in use ends with its request.
    max_connection_duration: float = 0.0
    # Of a response.
    max_headers_count: int = 100
    max_response_headers_bytes: int = 60 * 1024
    # HttpProtocolOptions: explicit_http_config; DOWNSTREAM (use_downstream_protocol_config): what the request came by.
    protocol: Literal["HTTP1", "HTTP2", "DOWNSTREAM"] = "HTTP1"
    http2: Http2Options = HTTP2_DEFAULTS
    load_balancing: LoadBalancing = LB_DEFAULTS
    health_check: HealthCheck | None = None
    # Otherwise an endpoint that discovery has taken out serves on as long as its health check passes.
    ignore_health_on_host_removal: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """envoy.config.endpoint.v3.LbEndpoint. `healthy` folds HealthStatus: UNKNOWN and HEALTHY are True."""

    address: Address
    weight: int = 1
    healthy: bool = True
    # filter_metadata["pillion"], as sorted (key, value) pairs: instance, version and other labels.
    labels: tuple[tuple[str, str], ...] = ()
    # What auto_host_rewrite sends: the name that DNS resolved, or the endpoint's `hostname`; "" without one.
    hostname: str = ""
    # Takes requests only where the healthy ones of its priority do not suffice, and is not `healthy`.
    degraded: bool = False
    locality: Locality = NO_LOCALITY
    health_check: EndpointHealthCheck | None = None
    metadata: Metadata = ()


@dataclass(frozen=True, slots=True)
class LoadAssignment:
    """envoy.config.endpoint.v3.ClusterLoadAssignment, localities flattened. `overprovisioning_factor` in percent."""

    name: str
    endpoints: tuple[Endpoint, ...]
    overprovisioning_factor: int = 140


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """What the active health checks of the cluster `name` say: `failed` endpoints take no requests; of those, the
    `pending` ones have not been checked yet. `kept`: discovery has taken them out; they serve on while they pass."""

    name: str
    failed: tuple[Address, ...] = ()
    pending: tuple[Address, ...] = ()
    kept: tuple[Endpoint, ...] = ()
