"""What HTTP filters are told: the config of one entry of http_filters, and what routes say to a filter."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
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
    """envoy.extensions.filters.http.cors.v3.CorsPolicy, of a route, a virtual host or a route configuration.

    The texts, `max_age` (seconds) among them, are written as they stand; "" writes no header.
    """

    # Any of them allows an Origin; without one none is allowed.
    allow_origin_string_match: tuple[StringMatcher, ...] = ()
    allow_methods: str = ""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    # filter_enabled, of which only 0 and 100 percent are taken. False: the filter leaves this route alone.
    enabled: bool = True
    # None is what was not said: false for the first two; true for the last one, by which the preflight request of an
    # Origin that is not allowed goes to the upstream instead of being answered here.
    allow_credentials: bool | None = None
    allow_private_network_access: bool | None = None
    forward_not_matching_preflights: bool | None = None

    def over(self, outer: CorsPolicy | None) -> CorsPolicy:
        """This policy with what only a less specific one says: field by field, as Envoy reads the two. Whether the
        filter is enabled, the most specific one says alone."""
        if outer is None:
            return self
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in ((), "", None)}
        return replace(outer, **said)
