"""RouteMatch.grpc, and what a route, its virtual host and its configuration say together."""

from __future__ import annotations

import pytest

from proxy.config.filters import CorsPolicy
from proxy.config.route import (
    ForwardAction,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from proxy.http.heads import RequestHead
from proxy.routing.table import CompiledRoute, Defaults, RouteTable

PLAIN = RouteMatch("prefix", "/")
ACTION = ForwardAction((WeightedCluster("c"),))


def head(content_type: str | None) -> RequestHead:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    return RequestHead(b"POST", b"/", b"a", headers)


@pytest.mark.parametrize(
    ("content_type", "name", "name_behind_grpc_web"),
    [
        ("application/grpc", "grpc", "grpc"),
        ("application/grpc+proto", "grpc", "grpc"),
        ("application/grpc+", "grpc", "grpc"),
        ("application/grpc;charset=utf-8", "rest", "rest"),  # this and the next: as Envoy 1.40 was seen to do
        ("Application/gRPC", "rest", "rest"),
        ("application/grpcx", "rest", "rest"),
        ("application/grpc-web", "rest", "grpc"),
        ("application/grpc-web+proto", "rest", "grpc"),
        ("application/grpc-web-text", "rest", "grpc"),
        ("application/grpc-webx", "rest", "rest"),
        ("text/plain", "rest", "rest"),
        (None, "rest", "rest"),
    ],
)
def test_a_grpc_match_is_for_its_content_types(content_type: str | None, name: str, name_behind_grpc_web: str) -> None:
    routes = (Route(RouteMatch("prefix", "/", grpc=True), ACTION, "grpc"), Route(PLAIN, ACTION, "rest"))
    config = RouteConfiguration("r", (VirtualHost("all", ("*",), routes),))
    for defaults, expected in ((Defaults(), name), (Defaults(grpc_web=True), name_behind_grpc_web)):
        found = RouteTable(config, str, defaults).match(head(content_type))
        assert found is not None
        assert found.name == expected


def compiled(
    action: ForwardAction = ACTION,
    route: CorsPolicy | None = None,
    host: CorsPolicy | None = None,
    configuration: CorsPolicy | None = None,
    off: tuple[bool, bool, bool] = (False, False, False),
) -> CompiledRoute[str]:
    entry = Route(PLAIN, action, cors=route, grpc_web_disabled=off[0])
    around = VirtualHost("all", ("*",), (entry,), cors=host, grpc_web_disabled=off[1])
    config = RouteConfiguration("r", (around,), cors=configuration, grpc_web_disabled=off[2])
    found = RouteTable(config, str).match(head(None))
    assert found is not None
    return found


def test_the_most_specific_policy_counts_field_by_field() -> None:
    outer, middle, inner = CorsPolicy(max_age="1"), CorsPolicy(allow_methods="2"), CorsPolicy(allow_headers="3")
    assert compiled().cors is None
    assert compiled(configuration=outer).cors == outer
    assert compiled(configuration=outer, route=inner).cors == CorsPolicy(allow_headers="3", max_age="1")
    assert compiled(configuration=outer, host=middle, route=inner).cors == CorsPolicy(
        allow_methods="2", allow_headers="3", max_age="1"
    )
    off = CorsPolicy(enabled=False)
    assert compiled(host=middle, route=off).cors == CorsPolicy(allow_methods="2", enabled=False)
    assert compiled(host=off, route=inner).cors == inner


def test_grpc_web_is_off_where_any_level_says_so() -> None:
    assert not compiled().grpc_web_disabled
    for off in ((True, False, False), (False, True, False), (False, False, True)):
        assert compiled(off=off).grpc_web_disabled


def test_a_route_carries_its_bounds_of_grpc_timeout() -> None:
    found = compiled()
    assert (found.grpc_timeout_header_max, found.grpc_timeout_header_offset) == (None, 0.0)
    found = compiled(ForwardAction((), grpc_timeout_header_max=0.0, grpc_timeout_header_offset=0.5))
    assert (found.grpc_timeout_header_max, found.grpc_timeout_header_offset) == (0.0, 0.5)
