"""The route configuration "outbound": one virtual host for each service of the mesh."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from envoy.config.route.v3.route_components_pb2 import (
    HeaderMatcher,
    QueryParameterMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from control_plane import mesh
from control_plane.compile.cds import cluster_name

OUTBOUND = "outbound"
TIMEOUT = 15.0  # seconds; Envoy's default, said aloud
RETRY_ON = "connect-failure,refused-stream,reset-before-request"  # only what the app has not seen
RETRY_CALLS_ON = f"{RETRY_ON},unavailable"  # by which a gRPC service says itself that nothing was done
RETRY_ON_WHEN_SAFE = "reset,retriable-status-codes"
"""What our sidecars retry besides, where repeating changes nothing. Others cannot tell, and do not get it."""
RETRIABLE_STATUS = 503
NUM_RETRIES = 2
DEFAULT_ROUTE = "default"

_EVERYTHING = mesh.RouteMatch()
_KINDS = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}


def route_configuration(hosts: Iterable[VirtualHost]) -> RouteConfiguration:
    """All virtual hosts, in the order given."""
    configuration = RouteConfiguration(name=OUTBOUND, ignore_port_in_host_matching=True)
    configuration.virtual_hosts.extend(hosts)
    return configuration


def virtual_host(service: mesh.Service, trust_domain: str) -> VirtualHost:
    """The routes to one service, most specific first."""
    domains = [service.name, f"{service.name}.{trust_domain}"]
    return VirtualHost(name=service.name, domains=domains, routes=routes(service))


def routes(service: mesh.Service) -> list[Route]:
    """One Envoy route for each match, by Gateway API's precedence; Envoy takes the first that matches."""
    pairs = [(match, route) for route in service.routes for match in route.matches or (_EVERYTHING,)]
    if not pairs:
        itself = mesh.Route.model_construct(
            name=DEFAULT_ROUTE,
            matches=(),
            backend_refs=(mesh.BackendRef(name=service.name),),
            timeouts=mesh.Timeouts(),
        )
        pairs = [(_EVERYTHING, itself)]
    pairs.sort(key=lambda pair: precedence(pair[0]))  # stable: ties keep the order they were written in
    return [_route(service, match, route) for match, route in pairs]


def _route(service: mesh.Service, match: mesh.RouteMatch, route: mesh.Route) -> Route:
    found = Route(name=route.name or "", match=_match(match))
    if service.protocol == "grpc":
        found.route.CopyFrom(_grpc_action(route))
    else:
        found.route.CopyFrom(_http_action(route))
        found.metadata.filter_metadata["pillion"].update({"retry_on_when_safe": RETRY_ON_WHEN_SAFE})
    return found


def precedence(match: mesh.RouteMatch) -> tuple[int, int, bool, int, int]:
    """Sorts first what Gateway API's HTTPRouteRule.matches puts first: an exact path, the longest prefix, a
    method, the number of headers, the number of query parameters.

    Regular expressions, whose place the standard leaves open, stand between exact paths and prefixes: after
    the prefixes they would never be reached in a service that also has a route for "/".
    """
    length = len(match.path.value.rstrip("/")) if match.path.type == "PathPrefix" else len(match.path.value)
    return (
        _KINDS[match.path.type],
        -length,
        match.method is None,
        -len(match.headers),
        -len(match.query_params),
    )


def clusters(service: mesh.Service) -> set[str]:
    """The names of all clusters that the service's routes refer to."""
    if not service.routes:
        return {cluster_name(service.name)}
    return {cluster_name(r.name, r.version) for route in service.routes for r in route.backend_refs if r.weight}


class _Value(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def value(self) -> str: ...


def _match(match: mesh.RouteMatch) -> RouteMatch:
    proto = RouteMatch()
    path = match.path
    prefix = path.value.rstrip("/")
    if path.type == "Exact":
        proto.path = path.value
    elif path.type == "RegularExpression":
        proto.safe_regex.CopyFrom(RegexMatcher(regex=path.value))
    elif prefix:
        proto.path_separated_prefix = prefix
    else:
        proto.prefix = "/"
    if match.method is not None:
        method = StringMatcher(exact=match.method)
        proto.headers.append(HeaderMatcher(name=":method", string_match=method))
    for header in match.headers:
        proto.headers.append(HeaderMatcher(name=header.name, string_match=_string(header)))
    for parameter in match.query_params:
        proto.query_parameters.append(QueryParameterMatcher(name=parameter.name, string_match=_string(parameter)))
    return proto


def _string(value: _Value) -> StringMatcher:
    if value.type == "RegularExpression":
        return StringMatcher(safe_regex=RegexMatcher(regex=value.value))
    return StringMatcher(exact=value.value)


def _http_action(route: mesh.Route) -> RouteAction:
    request = route.timeouts.request
    action = _action(route, RETRY_ON)
    action.timeout.CopyFrom(_duration(TIMEOUT if request is None else request))
    return action


def _grpc_action(route: mesh.Route) -> RouteAction:
    """A call may last, and be silent, as long as its caller's deadline (the header grpc-timeout) allows.

    `timeouts.request` bounds that. It becomes no `timeout`: Envoy ignores that beside `max_stream_duration`, and its
    end is UNAVAILABLE, not DEADLINE_EXCEEDED.
    """
    longest = _duration(route.timeouts.request or 0.0)
    action = _action(route, RETRY_CALLS_ON)
    action.timeout.CopyFrom(Duration())
    action.idle_timeout.CopyFrom(Duration())
    if route.timeouts.request:
        action.max_stream_duration.max_stream_duration.CopyFrom(longest)
    action.max_stream_duration.grpc_timeout_header_max.CopyFrom(longest)  # 0: whatever the header says
    return action


def _action(route: mesh.Route, retry_on: str) -> RouteAction:
    policy = RetryPolicy(retry_on=retry_on, num_retries=UInt32Value(value=NUM_RETRIES))
    policy.retriable_status_codes.append(RETRIABLE_STATUS)
    action = RouteAction(retry_policy=policy)
    weights = _shares(route)
    if len(weights) == 1:
        action.cluster = next(iter(weights))
    else:
        action.weighted_clusters.clusters.extend(
            WeightedCluster.ClusterWeight(name=name, weight=UInt32Value(value=weight))
            for name, weight in weights.items()
        )
    return action


def shares(service: mesh.Service) -> dict[str, int]:
    """Weights by cluster of a service that has at most one route: a tcp service."""
    return _shares(service.routes[0]) if service.routes else {cluster_name(service.name): 1}


def _shares(route: mesh.Route) -> dict[str, int]:
    # Refs to the same cluster are one share; Envoy refuses a cluster of weight zero alone, and needs none.
    weights: dict[str, int] = {}
    for ref in route.backend_refs:
        if ref.weight:
            name = cluster_name(ref.name, ref.version)
            weights[name] = weights.get(name, 0) + ref.weight
    return weights


def _duration(seconds: float) -> Duration:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return Duration(seconds=whole, nanos=milliseconds * 1_000_000)
