"""Cross-origin resource sharing (envoy.extensions.filters.http.cors.v3.Cors; the browser's side is the Fetch Standard,
section "CORS protocol").

A preflight request of an origin that the route's policy allows is answered here; any other response to such an origin
gets the fields that let a script of that origin read it. As in Envoy, an origin that is not allowed gets its response
without them, which is enough: the browser keeps it from the script.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.config.filters import CorsPolicy
from proxy.filters.interface import Filter, Reply, Transform, put
from proxy.http.headers import Headers, find
from proxy.http.heads import RequestHead, ResponseHead
from proxy.routing import matchers
from proxy.routing.table import CompiledRoute
from proxy.telemetry.record import Record

ALLOW_CREDENTIALS: Final = b"access-control-allow-credentials"
ALLOW_HEADERS: Final = b"access-control-allow-headers"
ALLOW_METHODS: Final = b"access-control-allow-methods"
ALLOW_ORIGIN: Final = b"access-control-allow-origin"
ALLOW_PRIVATE_NETWORK: Final = b"access-control-allow-private-network"
EXPOSE_HEADERS: Final = b"access-control-expose-headers"
MAX_AGE: Final = b"access-control-max-age"
REQUEST_HEADERS: Final = b"access-control-request-headers"
REQUEST_METHOD: Final = b"access-control-request-method"
REQUEST_PRIVATE_NETWORK: Final = b"access-control-request-private-network"

_ANY: Final = b"*"


class Policy:
    """A route's policy, compiled."""

    __slots__ = (
        "_any_origin",
        "_origins",
        "allow_headers",
        "allow_methods",
        "credentials",
        "expose_headers",
        "forward",
        "max_age",
        "private_network",
    )

    def __init__(self, config: CorsPolicy) -> None:
        self._origins = [matchers.string(matcher) for matcher in config.allow_origin_string_match]
        # What matches "*" allows every origin (Envoy's rule).
        self._any_origin = any(matches(_ANY) for matches in self._origins)
        self.allow_methods = config.allow_methods.encode()
        self.allow_headers = config.allow_headers.encode()
        self.expose_headers = config.expose_headers.encode()
        self.max_age = config.max_age.encode()
        self.credentials = config.allow_credentials is True
        self.private_network = config.allow_private_network_access is True
        self.forward = config.forward_not_matching_preflights is not False

    def allows(self, origin: bytes) -> bool:
        """Whether a script of that origin may use the route."""
        return self._any_origin or any(matches(origin) for matches in self._origins)

    def preflight(self, origin: bytes, allowed: bool, method: bytes, headers: Headers) -> Headers:
        """The fields of the answer to a preflight request; `method` and `headers` are the request's.

        "*" for methods or headers is answered with what was asked for, because the browser would take it by the
        letter in requests with credentials."""
        fields: Headers = [(ALLOW_ORIGIN, origin)] if allowed else []
        if self.credentials:
            fields.append((ALLOW_CREDENTIALS, b"true"))
        if self.allow_methods:
            fields.append((ALLOW_METHODS, method if self.allow_methods == _ANY else self.allow_methods))
        if self.allow_headers:
            asked = (find(headers, REQUEST_HEADERS) or b"") if self.allow_headers == _ANY else self.allow_headers
            fields.append((ALLOW_HEADERS, asked))
        if self.max_age:
            fields.append((MAX_AGE, self.max_age))
        if self.private_network and find(headers, REQUEST_PRIVATE_NETWORK) == b"true":
            fields.append((ALLOW_PRIVATE_NETWORK, b"true"))
        if allowed and self.expose_headers:
            fields.append((EXPOSE_HEADERS, self.expose_headers))
        return fields


class CorsResponse(Transform):
    """One response to an origin that is allowed."""

    __slots__ = ("_origin", "_policy")

    def __init__(self, policy: Policy, origin: bytes) -> None:
        self._policy: Final = policy
        self._origin: Final = origin

    def response_head(self, head: ResponseHead, alone: bool) -> None:
        policy = self._policy
        headers = put(head.headers, ALLOW_ORIGIN, self._origin)
        if policy.credentials:
            headers = put(headers, ALLOW_CREDENTIALS, b"true")
        if policy.expose_headers:
            headers = put(headers, EXPOSE_HEADERS, policy.expose_headers)
        head.headers = headers


class CorsFilter(Filter):
    """Applies each route's policy; routes that answer by themselves (direct_response) have none, as in Envoy."""

    __slots__ = ("_policies",)

    def __init__(self, config: object) -> None:
        # By route, which is one object for as long as this filter lives: both are of one snapshot.
        self._policies: dict[CompiledRoute[Any], Policy] = {}

    def on_request(
        self, head: RequestHead, record: Record, route: CompiledRoute[Any] | None
    ) -> Reply | Transform | None:
        config = route.cors if route is not None and route.forward is not None else None
        if route is None or config is None or not config.enabled:
            return None
        origin = find(head.headers, b"origin")
        if not origin:
            return None
        policy = self._policies.get(route)
        if policy is None:
            self._policies[route] = policy = Policy(config)
        allowed = policy.allows(origin)
        if head.method == b"OPTIONS" and (allowed or not policy.forward):
            method = find(head.headers, REQUEST_METHOD)
            if method:
                return Reply(200, policy.preflight(origin, allowed, method, head.headers), details="cors_response")
        return CorsResponse(policy, origin) if allowed else None
