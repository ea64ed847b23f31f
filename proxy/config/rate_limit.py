"""Rate limits (envoy.extensions.filters.http.local_ratelimit.v3, and what routes say of their requests)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:  # routes hold rate limits
    from proxy.config.route import HeaderMatcher, HeaderValueOption, Route, RouteConfiguration, VirtualHost

LOCAL_RATE_LIMIT: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
"""HttpFilter.type_url of the local rate limit filter."""

Descriptor = tuple[tuple[str, str], ...]
"""(key, value) pairs that tell what a request is (envoy.extensions.common.ratelimit.v3.RateLimitDescriptor)."""


@dataclass(frozen=True, slots=True)
class TokenBucketConfig:
    """envoy.type.v3.TokenBucket. `fill_interval` is in seconds."""

    max_tokens: int
    tokens_per_fill: int
    fill_interval: float


@dataclass(frozen=True, slots=True)
class LimitedDescriptor:
    """envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor. An entry without a value stands for every value,
    each with a bucket of its own."""

    entries: Descriptor
    bucket: TokenBucketConfig


@dataclass(frozen=True, slots=True)
class RateLimitAction:
    """envoy.config.route.v3.RateLimit.Action: what makes one entry of a descriptor. `peer` is Envoy's extension
    envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor with the text connection.uri_san_peer_certificate."""

    kind: Literal["request_headers", "remote_address", "generic_key", "header_value_match", "peer"]
    key: str
    # generic_key and header_value_match: what the entry says.
    value: str = ""
    # request_headers: the header, in lower case.
    header: str = ""
    # Without the header, or without a peer: leave out the entry (True) or the whole descriptor.
    skip_if_absent: bool = False
    # header_value_match: whether the headers are to match.
    expect_match: bool = True
    headers: tuple[HeaderMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """envoy.config.route.v3.RateLimit: the actions that make one descriptor."""

    actions: tuple[RateLimitAction, ...]
    stage: int = 0


@dataclass(frozen=True, slots=True)
class LocalRateLimit:
    """envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, of a listener's filter or in a
    typed_per_filter_config. One whose `enabled` is 0 does nothing."""

    stat_prefix: str
    # For every request; None: only descriptors limit.
    bucket: TokenBucketConfig | None = None
    descriptors: tuple[LimitedDescriptor, ...] = ()
    # filter_enabled and filter_enforced: the share of requests, from 0 to 1, that is counted, and the share of those
    # that may be refused.
    enabled: float = 0.0
    enforced: float = 0.0
    status: int = 429
    request_headers_to_add: tuple[HeaderValueOption, ...] = ()
    response_headers_to_add: tuple[HeaderValueOption, ...] = ()
    stage: int = 0
    per_connection: bool = False
    # enable_x_ratelimit_headers is DRAFT_VERSION_03.
    ratelimit_headers: bool = False
    # Whether a request that a descriptor limits takes a token of `bucket`, too.
    always_consume_default: bool = True
    resource_exhausted: bool = False
    # What makes descriptors, in place of what routes and virtual hosts say.
    rate_limits: tuple[RateLimit, ...] = ()
    virtual_host: Literal["OVERRIDE", "INCLUDE", "IGNORE"] = "OVERRIDE"
    # Buckets that each descriptor with an open value may have at a time.
    max_dynamic_descriptors: int = 20


def nearest(route: Route, host: VirtualHost, configuration: RouteConfiguration) -> tuple[object, LocalRateLimit] | None:
    """What holds for a route, and the place where it is said: those who share the place share its buckets. None: what
    the listener says."""
    if route.local_rate_limit is not None:
        return ("route", host.name, route.name, route.match), route.local_rate_limit
    if host.local_rate_limit is not None:
        return ("virtual host", host.name), host.local_rate_limit
    if configuration.local_rate_limit is not None:
        return "route configuration", configuration.local_rate_limit
    return None
