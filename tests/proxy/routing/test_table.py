"""The route table against a naive reading of the same configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.model import StringMatcher
from proxy.config.route import (
    ForwardAction,
    HeaderMatcher,
    QueryParameterMatcher,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from proxy.http.heads import RequestHead
from proxy.routing.table import RouteTable, without_port


def head(target: str = "/", host: str = "a", headers: dict[str, str] | None = None, method: str = "GET") -> RequestHead:
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return RequestHead(method.encode(), target.encode(), host.encode(), pairs)


def forward(name: str = "c") -> ForwardAction:
    return ForwardAction((WeightedCluster(name),))


def table(*hosts: VirtualHost, ignore_port: bool = False) -> RouteTable[str]:
    return RouteTable(RouteConfiguration("r", hosts, ignore_port), str)


def host(name: str, *domains: str, match: RouteMatch | None = None) -> VirtualHost:
    return VirtualHost(name, domains, (Route(match or RouteMatch("prefix", "/"), forward(), name),))


def test_connect_matches_only_its_own_matcher_and_nothing_else_does() -> None:
    def several(name: str, domain: str, *kinds: str) -> VirtualHost:
        routes = [Route(RouteMatch(kind, ""), forward(), f"{name} {kind}") for kind in kinds]  # type: ignore[arg-type]
        return VirtualHost(name, (domain,), tuple(routes))

    routes = table(
        several("a", "a:443", "connect_matcher", "prefix"),
        several("b", "b:443", "prefix"),
        several("rest", "*", "connect_matcher"),
    )

    def found(host: str, method: str = "CONNECT") -> str | None:
        request = head(host, host, method=method)
        route = routes.match_connect(request) if method == "CONNECT" else routes.match(request)
        return route.name if route is not None else None

    assert found("a:443") == "a connect_matcher"
    assert found("b:443") is None  # its host has none, and no other host is asked
    assert found("c:443") == "rest connect_matcher"
    assert found("a:443", "GET") == "a prefix"
    assert found("c:443", "GET") is None
    assert table(host("all", "*")).match_connect(head("a:443", "a:443", method="CONNECT")) is None


def test_a_connect_matcher_has_conditions_like_any_other() -> None:
    secret = HeaderMatcher("x-secret", StringMatcher("exact", "1"))
    routes = table(host("all", "*", match=RouteMatch("connect_matcher", "", headers=(secret,))))
    assert routes.match_connect(head("a:1", "a:1", method="CONNECT")) is None
    assert routes.match_connect(head("a:1", "a:1", {"x-secret": "1"}, "CONNECT")) is not None


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("cart", "exact"),
        ("CART", "exact"),
        ("a.cart.com", "suffix"),
        ("a.b.cart.com", "longer suffix"),
        ("cart.org", "prefix"),
        (".cart.com", "rest"),
        ("nothing", "rest"),
        ("cart:80", "rest"),
    ],
)
def test_domains_are_searched_as_envoy_does(authority: str, expected: str) -> None:
    routes = table(
        host("rest", "*"),
        host("prefix", "cart.*"),
        host("suffix", "*.cart.com"),
        host("longer suffix", "*.b.cart.com"),
        host("exact", "cart"),
    )
    for _ in range(2):  # the second time from the cache
        found = routes.match(head(host=authority))
        assert found is not None
        assert found.name == expected


def test_the_port_is_ignored_when_asked() -> None:
    routes = table(host("v", "cart"), ignore_port=True)
    assert routes.match(head(host="cart:8080")) is not None
    assert routes.match(head(host="cart:x")) is None


@pytest.mark.parametrize(
    ("authority", "expected"),
    [("a", "a"), ("a:1", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("::1", "::1"), ("a:", "a"), ("", "")],
)
def test_without_port(authority: str, expected: str) -> None:
    assert without_port(authority.encode()) == expected.encode()


EXACT = StringMatcher("exact", "1")


@pytest.mark.parametrize(
    ("match", "request_head", "expected"),
    [
        (RouteMatch("prefix", "/a"), head("/ab"), True),
        (RouteMatch("prefix", "/a"), head("/b"), False),
        (RouteMatch("prefix", "/A", case_sensitive=False), head("/aB"), True),
        (RouteMatch("path", "/a"), head("/a?x=1"), True),
        (RouteMatch("path", "/a"), head("/a/"), False),
        (RouteMatch("path", "/A", case_sensitive=False), head("/a"), True),
        (RouteMatch("path_separated_prefix", "/a"), head("/a"), True),
        (RouteMatch("path_separated_prefix", "/a"), head("/a/b"), True),
        (RouteMatch("path_separated_prefix", "/a"), head("/ab"), False),
        (RouteMatch("path_separated_prefix", "/a"), head("/a?q"), True),
        (RouteMatch("safe_regex", "/[0-9]+"), head("/42?x"), True),
        (RouteMatch("safe_regex", "/[0-9]+"), head("/42x"), False),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher("x-a", EXACT),)), head(headers={"x-a": "1"}), True),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher("x-a", EXACT),)), head(headers={"x-a": "2"}), False),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher("x-a", EXACT),)), head(), False),
        (
            RouteMatch("prefix", "/", headers=(HeaderMatcher("x-a", EXACT, invert=True),)),
            head(headers={"x-a": "2"}),
            True,
        ),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher("x-a"),)), head(headers={"x-a": ""}), True),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher("x-a", invert=True),)), head(), True),
        (
            RouteMatch(
                "prefix", "/", headers=(HeaderMatcher("x-a", StringMatcher("exact", ""), treat_missing_as_empty=True),)
            ),
            head(),
            True,
        ),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher(":method", StringMatcher("exact", "GET")),)), head(), True),
        (RouteMatch("prefix", "/", headers=(HeaderMatcher(":method", StringMatcher("exact", "PUT")),)), head(), False),
        (RouteMatch("prefix", "/", query_parameters=(QueryParameterMatcher("q", EXACT),)), head("/?a=2&q=1"), True),
        (RouteMatch("prefix", "/", query_parameters=(QueryParameterMatcher("q", EXACT),)), head("/?q=2&q=1"), False),
        (RouteMatch("prefix", "/", query_parameters=(QueryParameterMatcher("q"),)), head("/?q"), True),
        (RouteMatch("prefix", "/", query_parameters=(QueryParameterMatcher("q"),)), head("/"), False),
    ],
)
def test_route_matches(match: RouteMatch, request_head: RequestHead, expected: bool) -> None:
    assert (table(host("v", "*", match=match)).match(request_head) is not None) is expected


KINDS = st.sampled_from(["exact", "prefix", "suffix", "contains"])


@given(KINDS, st.text("aAb", max_size=3), st.text("aAb", max_size=4), st.booleans())
def test_string_matchers_equal_their_definition(kind: str, wanted: str, value: str, ignore_case: bool) -> None:
    matcher = StringMatcher(kind, wanted, ignore_case)  # type: ignore[arg-type]
    match = RouteMatch("prefix", "/", headers=(HeaderMatcher("x", matcher),))
    w, v = (wanted.lower(), value.lower()) if ignore_case else (wanted, value)
    naive = {"exact": v == w, "prefix": v.startswith(w), "suffix": v.endswith(w), "contains": w in v}[kind]
    found = table(host("v", "*", match=match)).match(head(headers={"x": value}))
    assert (found is not None) is naive


@given(st.lists(st.integers(0, 10), min_size=1, max_size=5).filter(any), st.floats(0, 1, exclude_max=True))
def test_weighted_targets_share_the_unit_interval(weights: list[int], draw: float) -> None:
    action = ForwardAction(tuple(WeightedCluster(str(i), weight) for i, weight in enumerate(weights)))
    routes: RouteTable[str] = RouteTable(
        RouteConfiguration("r", (VirtualHost("v", ("*",), (Route(RouteMatch("prefix", "/"), action),)),)), str
    )
    route = routes.match(head())
    assert route is not None
    picked = int(route.target(lambda: draw))
    below = sum(weights[:picked])
    assert weights[picked] > 0
    assert below <= draw * sum(weights) < below + weights[picked]


def test_prefix_rewrite_keeps_the_rest() -> None:
    action = ForwardAction((WeightedCluster("c"),), prefix_rewrite="/v2")
    match = RouteMatch("prefix", "/api")
    routes: RouteTable[str] = RouteTable(
        RouteConfiguration("r", (VirtualHost("v", ("*",), (Route(match, action),)),)), str
    )
    route = routes.match(head("/api/x?y"))
    assert route is not None
    assert route.rewritten(b"/api/x?y") == b"/v2/x?y"
