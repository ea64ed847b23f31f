"""What HTTP filters are told: the config of one entry of http_filters, and what routes say to a filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.config.model import StringMatcher

CORS: Final = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"
"""HttpFilter.type_url of the CORS filter."""

GRPC_WEB: Final = "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"
"""HttpFilter.type_url of the gRPC-Web filter."""


@dataclass(frozen=True, slots=True)
class Cors:
    """envoy.extensions.filters.http.cors.v3.Cors: the filter is there; routes hold the policies."""


@dataclass(frozen=True, slots=True)
class GrpcWeb:
    """envoy.extensions.filters.http.grpc_web.v3.GrpcWeb: requests of its content types become gRPC."""


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """envoy.extensions.filters.http.cors.v3.CorsPolicy, of a route or of a virtual host.

    The four texts and `max_age` (seconds, as text) are written as they stand; "" writes no header. None: not said here.
    """

    # Any of them allows an Origin; none allows nothing.
    allow_origin_string_match: tuple[StringMatcher, ...] = ()
    allow_methods: str = ""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    # None: false.
    allow_credentials: bool | None = None
    # filter_enabled, of which only 0 and 100 percent are taken. False: the filter leaves this route alone.
    enabled: bool = True
    # None: false.
    allow_private_network_access: bool | None = None
    # A preflight request of an Origin that is not allowed goes to the upstream, or is answered here. None: true.
    forward_not_matching_preflights: bool | None = None
