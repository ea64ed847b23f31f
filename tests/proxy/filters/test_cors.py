"""The CORS filter: which requests it answers, what it writes on which responses. The table is what Envoy 1.40 does."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.filters import CorsPolicy
from proxy.config.model import StringMatcher
from proxy.config.route import (
    DirectResponse,
    ForwardAction,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from proxy.filters.cors import CorsFilter
from proxy.filters.interface import Chain, Reply, Transform
from proxy.http.heads import RequestHead, ResponseHead
from proxy.routing.table import CompiledRoute, RouteTable
from proxy.telemetry.record import Record

ORIGIN = "https://ok.test"
EXACT = (StringMatcher("exact", ORIGIN),)
FULL = CorsPolicy(
    EXACT,
    allow_methods="GET, POST",
    allow_headers="content-type,x-grpc-web",
    expose_headers="grpc-status",
    max_age="600",
    allow_credentials=True,
    allow_private_network_access=True,
)
ECHO = CorsPolicy((StringMatcher("prefix", "https://"),), allow_methods="*", allow_headers="*", expose_headers="*")


def route(policy: CorsPolicy | None, action: ForwardAction | DirectResponse | None = None) -> CompiledRoute[str]:
    config = Route(RouteMatch("prefix", "/"), action or ForwardAction((WeightedCluster("c"),)), cors=policy)
    table = RouteTable(RouteConfiguration("r", (VirtualHost("v", ("*",), (config,)),)), str)
    found = table.match(RequestHead(b"GET", b"/", b"a", []))
    assert found is not None
    return found


def asked(policy: CorsPolicy | None, method: str = "GET", origin: str = ORIGIN, **fields: str) -> Any:
    headers = {"origin": origin, **{name.replace("_", "-"): value for name, value in fields.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items() if value]
    return CorsFilter(None).on_request(RequestHead(method.encode(), b"/", b"a", pairs), Record(0.0), route(policy))


def preflight(policy: CorsPolicy, origin: str = ORIGIN, **fields: str) -> Any:
    return asked(policy, "OPTIONS", origin, access_control_request_method="PUT", **fields)


def answered(reply: Any) -> dict[str, str]:
    """The fields of the filter's own answer, by name without its prefix."""
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.details) == (200, b"", "cors_response")
    names = [name.decode().removeprefix("access-control-") for name, _ in reply.headers]
    assert len(set(names)) == len(names)
    return dict(zip(names, [value.decode() for _, value in reply.headers], strict=True))


def changed(transform: Any, *headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers of a response that has passed."""
    assert isinstance(transform, Transform)
    head = ResponseHead(200, b"OK", list(headers))
    assert Chain([transform]).response(head, [b"body"], True, []) == [b"body"]
    return head.headers


def test_a_preflight_request_is_answered() -> None:
    everything = {
        "allow-origin": ORIGIN,
        "allow-credentials": "true",
        "allow-methods": "GET, POST",
        "allow-headers": "content-type,x-grpc-web",
        "max-age": "600",
        "expose-headers": "grpc-status",
    }
    assert answered(preflight(FULL)) == everything
    private = preflight(FULL, access_control_request_private_network="true")
    assert answered(private) == {**everything, "allow-private-network": "true"}
    assert answered(preflight(FULL, access_control_request_private_network="false")) == everything
    assert answered(preflight(CorsPolicy(EXACT))) == {"allow-origin": ORIGIN}


def test_a_wildcard_of_methods_or_headers_is_answered_with_what_was_asked_for() -> None:
    fields = answered(preflight(ECHO, access_control_request_headers="x-a,x-b"))
    assert (fields["allow-methods"], fields["allow-headers"]) == ("PUT", "x-a,x-b")
    assert answered(preflight(ECHO))["allow-headers"] == ""
    assert fields["expose-headers"] == "*"


OTHER = "https://other.test"


@pytest.mark.parametrize(
    ("policy", "origin"),
    [
        (FULL, ""),
        (FULL, OTHER),
        (FULL, "https://ok.test.evil"),
        (FULL, "HTTPS://OK.TEST"),
        (CorsPolicy(EXACT, forward_not_matching_preflights=True), OTHER),
        (CorsPolicy(EXACT, enabled=False), ORIGIN),
        (CorsPolicy(), ORIGIN),
        (None, ORIGIN),
    ],
)
def test_what_is_not_of_an_allowed_origin_passes(policy: CorsPolicy | None, origin: str) -> None:
    assert asked(policy, "OPTIONS", origin, access_control_request_method="PUT") is None
    assert asked(policy, "GET", origin) is None


def test_an_origin_that_is_not_allowed_is_refused_where_its_preflight_requests_are_not_forwarded() -> None:
    policy = CorsPolicy(EXACT, allow_methods="GET", expose_headers="x", forward_not_matching_preflights=False)
    assert answered(preflight(policy, origin="https://other.test")) == {"allow-methods": "GET"}
    assert asked(policy, origin="https://other.test") is None


def test_a_response_says_that_its_origin_may_read_it() -> None:
    ours = [
        (b"access-control-allow-origin", ORIGIN.encode()),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"grpc-status"),
    ]
    assert changed(asked(FULL), (b"x", b"1")) == [(b"x", b"1"), *ours]
    # What the upstream says about the same gives way; what the policy does not speak of stays.
    theirs = [(name, b"theirs") for name, _ in ours]
    assert changed(asked(FULL), *theirs, (b"vary", b"Accept")) == [*ours, (b"vary", b"Accept")]
    assert changed(asked(CorsPolicy(EXACT)), *theirs) == [ours[0], *theirs[1:]]
    # An OPTIONS request that asks for no method is an ordinary one.
    assert changed(asked(FULL, "OPTIONS")) == ours


@pytest.mark.parametrize(
    ("matcher", "origin", "allowed"),
    [
        (StringMatcher("exact", "*"), "null", True),
        (StringMatcher("safe_regex", ".*"), "https://a", True),
        (StringMatcher("safe_regex", r"https://[a-z]+\.test"), "https://ok.test", True),
        (StringMatcher("safe_regex", r"https://[a-z]+\.test"), "https://ok.test.evil", False),
        (StringMatcher("suffix", ".test"), "https://ok.test", True),
        (StringMatcher("exact", "https://OK.test", ignore_case=True), "https://ok.test", True),
    ],
)
def test_origins_are_matched_as_strings(matcher: StringMatcher, origin: str, allowed: bool) -> None:
    assert (asked(CorsPolicy((matcher,)), origin=origin) is not None) is allowed


def test_only_routes_that_forward_have_a_policy() -> None:
    head = RequestHead(b"GET", b"/", b"a", [(b"origin", ORIGIN.encode())])
    assert CorsFilter(None).on_request(head, Record(0.0), route(FULL, DirectResponse(200))) is None
    assert CorsFilter(None).on_request(head, Record(0.0), None) is None


def test_each_route_has_its_own_policy() -> None:
    cors = CorsFilter(None)
    strict, open_ = route(FULL), route(ECHO)
    head = RequestHead(b"GET", b"/", b"a", [(b"origin", b"https://other.test")])
    for _ in range(2):
        assert cors.on_request(head, Record(0.0), strict) is None
        assert cors.on_request(head, Record(0.0), open_) is not None
