"""The local rate limit: which bucket a request meets, and what it is told. The answers are those of Envoy 1.40."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.config.model import StringMatcher
from proxy.config.rate_limit import (
    LimitedDescriptor,
    LocalRateLimit,
    RateLimit,
    RateLimitAction,
    TokenBucketConfig,
)
from proxy.config.route import (
    DirectResponse,
    ForwardAction,
    HeaderMatcher,
    HeaderValueOption,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from proxy.config.route import WeightedCluster as Weighted
from proxy.filters import local_rate_limit as module
from proxy.filters.interface import Reply, Setting, Transform
from proxy.filters.local_rate_limit import LocalRateLimitFilter
from proxy.http.headers import find
from proxy.http.heads import RequestHead, ResponseHead
from proxy.routing.table import RouteTable
from proxy.telemetry.counters import Counters
from proxy.telemetry.record import Record

TWO = TokenBucketConfig(2, 1, 10.0)
MANY = TokenBucketConfig(1000, 1000, 1.0)
ON = LocalRateLimit("x", TWO, enabled=1.0, enforced=1.0)
USER = RateLimitAction("request_headers", "user", header="x-user")
PEER = RateLimitAction("peer", "peer")
GRPC = (b"content-type", b"application/grpc")


class Caller(Record):
    """Who asks."""

    def __init__(self, address: str = "10.0.0.1:1000", peer: str = "") -> None:
        super().__init__(0.0)
        self.address, self.peer = address, peer

    def downstream_address(self) -> str:
        return self.address

    def direct_address(self) -> str:
        return self.address

    def peer_uri_san(self) -> str:
        return self.peer


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


class Limits:
    """A filter and the routes that it is asked about."""

    def __init__(
        self,
        config: LocalRateLimit,
        *limits: RateLimit,
        before: Limits | None = None,
        workers: int = 1,
        route: dict[str, Any] | None = None,
        host: dict[str, Any] | None = None,
        action: Any = None,
    ) -> None:
        forward = action or ForwardAction((Weighted("c"),), rate_limits=limits)
        routes = (
            Route(RouteMatch("path", "/one"), forward, **(route or {})),
            Route(RouteMatch("prefix", "/"), forward),
        )
        configuration = RouteConfiguration("r", (VirtualHost("v", ("*",), routes, **(host or {})),))
        self.table = RouteTable(configuration, str)
        self.counters = before.counters if before else Counters()
        self.filter = LocalRateLimitFilter(config)
        self.filter.begin(Setting(configuration, self.counters, workers), before.filter if before else None)

    def ask(self, path: bytes = b"/", *fields: tuple[bytes, bytes], caller: Record | None = None) -> Any:
        head = RequestHead(b"GET", path, b"a", list(fields))
        self.head = head
        return self.filter.on_request(head, caller or Caller(), self.table.match(head))

    def passes(self, *args: Any, **how: Any) -> bool:
        return not isinstance(self.ask(*args, **how), Reply)

    def counted(self) -> dict[str, int]:
        counters, _, _ = self.counters.take()
        return {name.removeprefix("http_local_rate_limit_"): value for (name, _), value in counters}


def user(name: bytes) -> tuple[bytes, bytes]:
    return b"x-user", name


def by(*actions: RateLimitAction, bucket: TokenBucketConfig = TWO, **how: Any) -> tuple[LocalRateLimit, RateLimit]:
    """A limit for every value of what the actions say."""
    limited = LimitedDescriptor(tuple((action.key, "") for action in actions), bucket)
    return replace(ON, bucket=None, descriptors=(limited,), **how), RateLimit(actions)


def test_a_burst_then_the_rate(clock: list[float]) -> None:
    limits = Limits(ON)
    assert [limits.passes() for _ in range(3)] == [True, True, False]
    reply = limits.ask()
    assert (reply.status, reply.body, reply.flag, reply.details) == (
        429,
        b"local_rate_limited",
        "RL",
        "local_rate_limited",
    )
    assert reply.headers == [(b"content-type", b"text/plain")]
    clock[0] += 10
    assert limits.passes()
    assert not limits.passes()
    assert limits.counted() == {"ok_total": 3, "rate_limited_total": 3, "enforced_total": 3}


def test_words_for_grpc() -> None:
    for config, code in ((ON, b"14"), (replace(ON, resource_exhausted=True), b"8"), (replace(ON, status=403), b"7")):
        limits = Limits(replace(config, bucket=replace(TWO, max_tokens=1)))
        assert limits.passes()
        reply = limits.ask(b"/", GRPC)
        assert (reply.status, find(reply.headers, b"grpc-status"), reply.body) == (200, code, b"")
        assert find(reply.headers, b"grpc-message") == b"local_rate_limited"


def test_headers_of_the_draft(clock: list[float]) -> None:
    add = (HeaderValueOption("x-a", "b"),)
    limits = Limits(replace(ON, ratelimit_headers=True, response_headers_to_add=add))

    def told(found: Any) -> list[bytes | None]:
        if isinstance(found, Transform):
            head = ResponseHead(200, b"", [(b"x-ratelimit-limit", b"app's")])
            found.response_head(head, True)
        else:
            head = ResponseHead(found.status, b"", found.headers)
        return [find(head.headers, name) for name in (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset", b"x-a")]  # fmt: skip

    assert told(limits.ask()) == [b"2", b"1", b"0", None]
    assert told(limits.ask()) == [b"2", b"0", b"10", None]
    clock[0] += 2.5
    assert told(limits.ask()) == [b"2", b"0", b"8", b"b"]


def test_trying_it_out() -> None:
    add = (HeaderValueOption("x-limited", "yes"),)
    limits = Limits(replace(ON, enforced=0.0, request_headers_to_add=add))
    for expected in (None, None, b"yes"):
        assert limits.passes()
        assert find(limits.head.headers, b"x-limited") == expected
    assert limits.counted() == {"ok_total": 2, "rate_limited_total": 1}
    off = Limits(replace(ON, enabled=0.0))
    assert all(off.passes() for _ in range(5))
    assert off.counted() == {}


def test_each_value_has_its_bucket_and_the_table_is_bounded() -> None:
    config, limit = by(USER, max_dynamic_descriptors=2)
    limits = Limits(config, limit)
    assert [limits.passes(b"/", user(b"a")) for _ in range(3)] == [True, True, False]
    assert [limits.passes(b"/", user(b"b")) for _ in range(3)] == [True, True, False]
    assert not limits.passes(b"/", user(b"a"))
    assert limits.passes(b"/", user(b"c" * 10_000))  # takes the place of b
    assert not limits.passes(b"/", user(b"a"))
    assert limits.passes(b"/", user(b"b"))
    assert all(limits.passes() for _ in range(5))  # without the header there is no descriptor


def test_callers_by_their_certificates_and_addresses() -> None:
    config, limit = by(PEER)
    limits = Limits(config, limit)
    cart, web = Caller(peer="spiffe://t/service/cart"), Caller(peer="spiffe://t/service/web")
    assert [limits.passes(caller=cart) for _ in range(3)] == [True, True, False]
    assert limits.passes(caller=web)
    assert all(limits.passes() for _ in range(5))  # without a certificate
    config, limit = by(RateLimitAction("remote_address", "remote_address"))
    limits = Limits(config, limit)
    assert [limits.passes(caller=Caller(f"[::1]:{port}")) for port in range(3)] == [True, True, False]
    assert limits.passes(caller=Caller("127.0.0.1:0"))


def test_fixed_values_and_conditions() -> None:
    matched = RateLimitAction(
        "header_value_match",
        "m",
        "v",
        headers=(HeaderMatcher("x-user", StringMatcher("exact", "u")),),
        expect_match=False,
    )
    named = RateLimitAction("generic_key", "g", "n")
    entries = (("g", "n"), ("m", "v"))
    config = replace(ON, bucket=None, descriptors=(LimitedDescriptor(entries, TWO),))
    limits = Limits(config, RateLimit((named, matched)))
    assert [limits.passes(b"/", user(b"other")) for _ in range(3)] == [True, True, False]
    assert all(limits.passes(b"/", user(b"u")) for _ in range(5))
    swapped = Limits(config, RateLimit((matched, named)))
    assert all(swapped.passes() for _ in range(5))  # the order counts
    other = Limits(config, RateLimit((named, matched), stage=1))
    assert all(other.passes() for _ in range(5))
    skipped = Limits(config, RateLimit((named, matched, replace(USER, skip_if_absent=True))))
    assert [skipped.passes() for _ in range(3)] == [True, True, False]


def test_the_bucket_for_all_counts_too_unless_told_not_to() -> None:
    one = TokenBucketConfig(1, 1, 60.0)
    config = replace(ON, descriptors=(LimitedDescriptor((("user", "u"),), one),))
    for always, left in ((True, 1), (False, 2)):
        limits = Limits(replace(config, always_consume_default=always), RateLimit((USER,)))
        assert limits.passes(b"/", user(b"u"))
        assert not limits.passes(b"/", user(b"u"))
        assert [limits.passes() for _ in range(3)].count(True) == left


def test_what_a_route_its_host_and_the_filter_say() -> None:
    config, limit = by(USER)
    host = {"rate_limits": (limit,)}

    def refuses(limits: Limits) -> bool:
        return [limits.passes(b"/", user(b"a")) for _ in range(3)].count(False) == 1

    other = RateLimit((RateLimitAction("generic_key", "g", "n"),))
    assert refuses(Limits(config, host=host))
    assert not refuses(Limits(config, other, host=host))
    assert refuses(Limits(replace(config, virtual_host="INCLUDE"), other, host=host))
    assert not refuses(Limits(replace(config, virtual_host="IGNORE"), host=host))
    included = ForwardAction((Weighted("c"),), rate_limits=(other,), include_vh_rate_limits=True)
    assert refuses(Limits(config, host=host, action=included))
    assert refuses(Limits(replace(config, rate_limits=(limit,)), other))
    assert not refuses(Limits(config, host=host, action=DirectResponse(200)))
    assert refuses(Limits(replace(config, rate_limits=(limit,)), action=DirectResponse(200)))


def test_a_route_has_its_own() -> None:
    limits = Limits(LocalRateLimit("none"), route={"local_rate_limit": ON})
    assert [limits.passes(b"/one") for _ in range(3)] == [True, True, False]
    assert all(limits.passes(b"/two") for _ in range(3))
    shared = Limits(ON, host={"local_rate_limit": ON}, route={"local_rate_limit": LocalRateLimit("off")})
    assert all(shared.passes(b"/one") for _ in range(3))
    assert [shared.passes(b"/two") for _ in range(3)] == [True, True, False]
    nowhere = LocalRateLimitFilter(ON)
    nowhere.begin(Setting(RouteConfiguration("r", ()), Counters(), 1), None)
    head = RequestHead(b"GET", b"/", b"a", [])
    found = [nowhere.on_request(head, Caller(), None) for _ in range(3)]
    assert [isinstance(one, Reply) for one in found] == [False, False, True]


def test_each_connection_has_its_own() -> None:
    limits = Limits(replace(ON, per_connection=True), workers=2)
    for address in ("10.0.0.1:1", "10.0.0.1:2"):
        assert [limits.passes(caller=Caller(address)) for _ in range(3)] == [True, True, False]


def test_buckets_outlive_configurations_that_leave_them_as_they_are() -> None:
    first = Limits(ON)
    assert [first.passes() for _ in range(2)] == [True, True]
    assert not Limits(ON, before=first).passes()
    assert Limits(replace(ON, bucket=replace(TWO, max_tokens=3)), before=first).passes()


def test_workers_share_a_bucket(clock: list[float]) -> None:
    both = [Limits(replace(ON, bucket=TokenBucketConfig(10, 10, 1.0), ratelimit_headers=True), workers=2) for _ in "ab"]
    assert [[one.passes() for _ in range(10)].count(True) for one in both] == [5, 5]
    clock[0] += 1
    assert [[one.passes() for _ in range(10)].count(True) for one in both] == [5, 5]
    reply = both[0].ask()
    assert find(reply.headers, b"x-ratelimit-limit") == b"10"
    least = Limits(replace(ON, bucket=TokenBucketConfig(1, 1, 1.0)), workers=4)
    assert least.passes()  # what can never hold a token would refuse everybody
    clock[0] += 3.9
    assert not least.passes()
    clock[0] += 0.2
    assert least.passes()
