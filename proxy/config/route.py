"""Route tables (envoy.config.route.v3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.config.balance import Metadata
from proxy.config.fault import Fault
from proxy.config.filters import CorsPolicy
from proxy.config.model import StringMatcher
from proxy.config.rate_limit import LocalRateLimit, RateLimit

PathSpecifier = Literal["prefix", "path", "safe_regex", "path_separated_prefix", "connect_matcher"]


@dataclass(frozen=True, slots=True)
class HeaderMatcher:
    """envoy.config.route.v3.HeaderMatcher. `name` is lower case (or :method, :authority, :path).

    Without `matcher` it is a present_match. `invert` negates the whole; a missing header never matches a
    `matcher`, unless `treat_missing_as_empty`."""

    name: str
    matcher: StringMatcher | None = None
    invert: bool = False
    treat_missing_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryParameterMatcher:
    """envoy.config.route.v3.QueryParameterMatcher. Without `matcher` it is a present_match."""

    name: str
    matcher: StringMatcher | None = None


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """envoy.config.route.v3.RouteMatch. The path is matched without its query string. A connect_matcher matches CONNECT
    requests, which nothing else matches; its `value` is empty."""

    kind: PathSpecifier
    value: str
    case_sensitive: bool = True
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    # Only requests whose content-type is application/grpc or application/grpc+something.
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """envoy.config.route.v3.RetryPolicy. `retry_on` holds Envoy's condition names. Times are seconds."""

    retry_on: frozenset[str]
    num_retries: int = 1
    # Of one try, from the end of the request on; 0: only the route's timeout counts.
    per_try_timeout: float = 0.0
    retriable_status_codes: frozenset[int] = frozenset()
    # retry_back_off: the first interval, which doubles, and the last.
    base_interval: float = 0.025
    max_interval: float = 0.25
    # rate_limited_retry_back_off with the header retry-after: the longest that it may ask for; 0: it is not looked at.
    retry_after_max: float = 0.0
    # filter_metadata["pillion"].retry_on_when_safe of the route: more conditions, for requests that may be repeated
    # without harm, by their method or by an Idempotency-Key.
    safe_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One entry of envoy.config.route.v3.WeightedCluster; a single `cluster` is one entry of weight 1. `metadata_match`
    is the entry's and the route's together: which subset of the cluster."""

    name: str
    weight: int = 1
    metadata_match: Metadata = ()


AppendAction = Literal["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]


@dataclass(frozen=True, slots=True)
class HeaderValueOption:
    """envoy.config.core.v3.HeaderValueOption. `name` is lower case; `value` may hold command operators, as in an
    access log. A value that comes out empty is not added, unless `keep_empty_value`."""

    name: str
    value: str
    append_action: AppendAction = "APPEND_IF_EXISTS_OR_ADD"
    keep_empty_value: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMutations:
    """The request_headers_to_add and _to_remove, response_headers_to_add and _to_remove of a route, a virtual host or
    a route configuration. Names are lower case."""

    request_add: tuple[HeaderValueOption, ...] = ()
    request_remove: tuple[str, ...] = ()
    response_add: tuple[HeaderValueOption, ...] = ()
    response_remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """envoy.config.route.v3.RouteAction.HashPolicy. `name` is that of the header (lower case), the cookie or the query
    parameter. A cookie with a `ttl` (seconds; 0: as long as the browser runs) is set when the client has none."""

    kind: Literal["header", "cookie", "source_ip", "query_parameter"]
    name: str = ""
    terminal: bool = False
    ttl: float | None = None
    path: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ForwardAction:
    """envoy.config.route.v3.RouteAction. `timeout` is for the answer, tries included, from the end of the request on;
    0 disables it.

    `idle_timeout` and `max_stream_duration` stand in place of the listener's stream_idle_timeout and
    max_stream_duration; None leaves those, 0 disables. `auto_host_rewrite`: the endpoint's host name is sent."""

    clusters: tuple[WeightedCluster, ...]
    timeout: float = 15.0
    retry: RetryPolicy | None = None
    prefix_rewrite: str | None = None
    host_rewrite: str | None = None
    # upgrade_configs: (lower-case protocol, whether it is passed on), which go before the listener's.
    upgrades: tuple[tuple[str, bool], ...] = ()
    # connect_config: CONNECT ends here, and its bytes go to the endpoint; otherwise the request itself does.
    ends_connect: bool = False
    auto_host_rewrite: bool = False
    idle_timeout: float | None = None
    max_stream_duration: float | None = None
    # max_stream_duration.grpc_timeout_header_max: a request's grpc-timeout, but no more than this (0: whatever it is),
    # stands in place of max_stream_duration. None: grpc-timeout holds, but makes no stream longer than that.
    grpc_timeout_header_max: float | None = None
    # Taken off what the line above makes of a grpc-timeout; with nothing left the stream ends at once.
    grpc_timeout_header_offset: float = 0.0
    # For clusters of ring hash and Maglev: what of the request decides where it goes.
    hash_policy: tuple[HashPolicy, ...] = ()
    # How requests are told apart by rate limits, in place of what the virtual host says of that or besides it.
    rate_limits: tuple[RateLimit, ...] = ()
    include_vh_rate_limits: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """envoy.config.route.v3.DirectResponseAction."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Route:
    """envoy.config.route.v3.Route. Of typed_per_filter_config: `cors`, whether gRPC-Web is switched off, `fault` and
    `local_rate_limit`."""

    match: RouteMatch
    action: ForwardAction | DirectResponse
    name: str = ""
    headers: HeaderMutations = HeaderMutations()
    cors: CorsPolicy | None = None
    grpc_web_disabled: bool = False
    fault: Fault | None = None
    local_rate_limit: LocalRateLimit | None = None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """envoy.config.route.v3.VirtualHost. Domains: exact, "*.suffix", "prefix.*" or "*", as in Envoy."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    headers: HeaderMutations = HeaderMutations()
    # What its routes' own typed_per_filter_config does not say.
    cors: CorsPolicy | None = None
    grpc_web_disabled: bool = False
    fault: Fault | None = None
    local_rate_limit: LocalRateLimit | None = None
    # How requests are told apart by rate limits; ForwardAction has the route's own.
    rate_limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """envoy.config.route.v3.RouteConfiguration. Header mutations of a route come first, its configuration's last;
    `most_specific_header_mutations_wins` turns that around."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    ignore_port_in_host_matching: bool = False
    headers: HeaderMutations = HeaderMutations()
    most_specific_header_mutations_wins: bool = False
    # What the typed_per_filter_config of its virtual hosts and routes does not say.
    cors: CorsPolicy | None = None
    grpc_web_disabled: bool = False
    fault: Fault | None = None
    local_rate_limit: LocalRateLimit | None = None

    def clusters(self) -> frozenset[str]:
        """The names of every cluster that a route refers to."""
        return frozenset(
            cluster.name
            for host in self.virtual_hosts
            for route in host.routes
            if isinstance(route.action, ForwardAction)
            for cluster in route.action.clusters
        )
