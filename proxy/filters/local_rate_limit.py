"""The local rate limit (envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit): token buckets in this
process, for all requests and for those of a descriptor, which tells what of a request counts: caller, header, address.
"""

from __future__ import annotations

from hashlib import blake2b
from random import random
from time import monotonic
from typing import Any, Final

from proxy.config.rate_limit import (
    Descriptor,
    LimitedDescriptor,
    LocalRateLimit,
    RateLimitAction,
    TokenBucketConfig,
    nearest,
)
from proxy.config.route import RouteConfiguration
from proxy.filters.interface import Filter, Reply, Setting, Transform, put
from proxy.http import grpc
from proxy.http.headers import Headers
from proxy.http.heads import RequestHead, ResponseHead
from proxy.policy.rate_limit import BucketTable, TokenBucket, admit, tightest
from proxy.routing import matchers
from proxy.routing.mutations import HeaderEdits, compile_edits
from proxy.routing.table import CompiledRoute
from proxy.telemetry.counters import Counters
from proxy.telemetry.header_value import compile_header_value
from proxy.telemetry.record import Record

LIMITED: Final = "RL"
"""Response flag (envoy.data.accesslog.v3.ResponseFlags: rate_limited)."""
CONNECTIONS: Final = 16 * 1024
"""Connections whose buckets are remembered, per limit."""

_MAX_NAME: Final = 256
_TEXT: Final = b"local_rate_limited"
_RESOURCE_EXHAUSTED: Final = b"8"


class Action:
    """What makes one entry of a descriptor, compiled."""

    __slots__ = ("_config", "_header", "_headers")

    def __init__(self, config: RateLimitAction) -> None:
        self._config: Final = config
        self._header: Final = config.header.encode()
        self._headers: Final = [matchers.header(matcher) for matcher in config.headers]

    def entry(self, head: RequestHead, record: Record) -> str | None:
        """The entry's value; "" leaves the entry out, None the whole descriptor."""
        config = self._config
        kind = config.kind
        if kind == "generic_key":
            return config.value
        if kind == "header_value_match":
            matched = all(matches(head) for matches in self._headers)
            return config.value if matched is config.expect_match else None
        if kind == "remote_address":
            return address_alone(record.downstream_address()) or None
        value = record.peer_uri_san() if kind == "peer" else (head.find(self._header) or b"").decode("latin-1")
        return value or ("" if config.skip_if_absent else None)

    @property
    def key(self) -> str:
        """The entry's key."""
        return self._config.key


def address_alone(text: str) -> str:
    """The address of address:port."""
    host = text.rpartition(":")[0]
    return host[1:-1] if host.startswith("[") else host


class Open:
    """A descriptor with entries that stand for every value; each combination of values has its own bucket."""

    __slots__ = ("_entries", "buckets")

    def __init__(self, entries: Descriptor, buckets: BucketTable) -> None:
        self._entries: Final = entries
        self.buckets: Final = buckets

    def matches(self, found: Descriptor) -> bool:
        """Whether a request's descriptor is one of its kind."""
        if len(found) != len(self._entries):
            return False
        for index, (key, value) in enumerate(self._entries):
            other = found[index]
            if key != other[0] or (value and value != other[1]):
                return False
        return True


class Buckets:
    """The buckets of one limit; or of one connection's share of it."""

    __slots__ = ("_always", "_closed", "_default", "_open")

    def __init__(self, config: LocalRateLimit, workers: int, now: float) -> None:
        self._default: TokenBucket | None = None
        if config.bucket is not None:
            self._default = TokenBucket(*shared(config.bucket, workers), now)
        self._always: Final = config.always_consume_default
        self._closed: dict[Descriptor, TokenBucket] = {}
        self._open: list[Open] = []
        for limited in config.descriptors:
            capacity, rate = shared(limited.bucket, workers)
            if _is_open(limited):
                table = BucketTable(capacity, rate, config.max_dynamic_descriptors)
                self._open.append(Open(limited.entries, table))
            else:
                self._closed[limited.entries] = TokenBucket(capacity, rate, now)

    def of(self, descriptors: list[Descriptor], now: float) -> list[TokenBucket]:
        """Those that a request with these descriptors has to take a token of."""
        found: list[TokenBucket] = []
        for descriptor in descriptors:
            bucket = self._closed.get(descriptor)
            if bucket is None:
                for one in self._open:
                    if one.matches(descriptor):
                        bucket = one.buckets.get(_name(descriptor), now)
                        break
            if bucket is not None and bucket not in found:
                found.append(bucket)
        if self._default is not None and (self._always or not found):
            found.append(self._default)
        return found


def _name(descriptor: Descriptor) -> object:
    """What a table keeps of a descriptor, which may hold whatever a client says: little, in any case."""
    size = 0
    for _, value in descriptor:
        size += len(value)
    return descriptor if size <= _MAX_NAME else blake2b(repr(descriptor).encode(), digest_size=32).digest()


def _is_open(limited: LimitedDescriptor) -> bool:
    return any(not value for _, value in limited.entries)


def shared(config: TokenBucketConfig, workers: int) -> tuple[float, float]:
    """(capacity, tokens a second) of one worker's part of a bucket; a bucket that never holds one would give none."""
    rate = config.tokens_per_fill / config.fill_interval
    return max(config.max_tokens / workers, 1.0), rate / workers


class Limit:
    """One LocalRateLimit with its buckets, which outlive configurations that do not change it."""

    __slots__ = (
        "_buckets",
        "_by_connection",
        "_counters",
        "_enforced_slot",
        "_limited_slot",
        "_ok_slot",
        "_rate_limits",
        "_request_edits",
        "_response_edits",
        "_workers",
        "config",
    )

    def __init__(self, config: LocalRateLimit, counters: Counters, workers: int) -> None:
        self.config: Final = config
        # A connection is one worker's.
        self._workers: Final = 1 if config.per_connection else workers
        self._buckets: Final = Buckets(config, self._workers, monotonic())
        self._by_connection: dict[str, Buckets] = {}
        self._rate_limits: Final = [
            (limit.stage, [Action(action) for action in limit.actions]) for limit in config.rate_limits
        ]
        self._request_edits: Final = _edits(config.request_headers_to_add)
        self._response_edits: Final = _edits(config.response_headers_to_add)
        self._counters: Final = counters
        prefix = config.stat_prefix
        self._ok_slot: Final = counters.slot("http_local_rate_limit_ok_total", stat_prefix=prefix)
        self._limited_slot: Final = counters.slot("http_local_rate_limit_rate_limited_total", stat_prefix=prefix)
        self._enforced_slot: Final = counters.slot("http_local_rate_limit_enforced_total", stat_prefix=prefix)

    @property
    def own(self) -> list[tuple[int, list[Action]]]:
        """What makes descriptors, in place of what routes say."""
        return self._rate_limits

    def check(
        self, head: RequestHead, record: Record, limits: list[tuple[int, list[Action]]], now: float
    ) -> Reply | Transform | None:
        """Count a request, and answer it if it is one too many."""
        config = self.config
        if config.enabled < 1.0 and random() >= config.enabled:
            return None
        buckets = self._of(record, now).of(descriptors(limits, config.stage, head, record), now)
        values = self._counters.values
        if admit(buckets, now):
            values[self._ok_slot] += 1
            return self._told(buckets, now) if config.ratelimit_headers and buckets else None
        values[self._limited_slot] += 1
        if config.enforced < 1.0 and random() >= config.enforced:
            if self._request_edits is not None:
                self._request_edits.apply(head.headers, record)
            return self._told(buckets, now) if config.ratelimit_headers else None
        values[self._enforced_slot] += 1
        return self._refusal(head, record, buckets, now)

    def _of(self, record: Record, now: float) -> Buckets:
        """The buckets for a request of this client."""
        if not self.config.per_connection:
            return self._buckets
        connections = self._by_connection
        address = record.direct_address()
        found = connections.pop(address, None)
        if found is None:
            if len(connections) >= CONNECTIONS:
                del connections[next(iter(connections))]
            found = Buckets(self.config, 1, now)
        connections[address] = found
        return found

    def _told(self, buckets: list[TokenBucket], now: float) -> RateLimitHeaders:
        return RateLimitHeaders(self._headers(buckets, now))

    def _headers(self, buckets: list[TokenBucket], now: float) -> Headers:
        """draft-ietf-httpapi-ratelimit-headers-03, in Envoy's words: of the bucket that has the fewest left."""
        bucket = tightest(buckets, now)
        workers = self._workers
        return [
            (b"x-ratelimit-limit", b"%d" % round(bucket.capacity * workers)),
            (b"x-ratelimit-remaining", b"%d" % int(bucket.tokens(now) * workers)),
            (b"x-ratelimit-reset", b"%d" % bucket.wait(now)),
        ]

    def _refusal(self, head: RequestHead, record: Record, buckets: list[TokenBucket], now: float) -> Reply:
        config = self.config
        if grpc.is_request(head):
            code = _RESOURCE_EXHAUSTED if config.resource_exhausted else grpc.code_of(config.status)
            status, headers, body = 200, grpc.error_headers(code, _TEXT), b""
        else:
            status, headers, body = config.status, [(b"content-type", b"text/plain")], _TEXT
        if config.ratelimit_headers:
            headers += self._headers(buckets, now)
        if self._response_edits is not None:
            self._response_edits.apply(headers, record)
        return Reply(status, headers, body, LIMITED, "local_rate_limited")


def _edits(options: Any) -> HeaderEdits | None:
    return compile_edits([(options, ())], compile_header_value)


def descriptors(
    limits: list[tuple[int, list[Action]]], stage: int, head: RequestHead, record: Record
) -> list[Descriptor]:
    """What the limits of a stage say of a request."""
    found: list[Descriptor] = []
    for of_stage, actions in limits:
        if of_stage != stage:
            continue
        entries: list[tuple[str, str]] = []
        for action in actions:
            value = action.entry(head, record)
            if value is None:
                entries = []
                break
            if value:
                entries.append((action.key, value))
        if entries:
            found.append(tuple(entries))
    return found


class RateLimitHeaders(Transform):
    """Tells the client how much is left."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Headers) -> None:
        self._fields: Final = fields

    def response_head(self, head: ResponseHead, alone: bool) -> None:
        for name, value in self._fields:
            head.headers = put(head.headers, name, value)


class Limited:
    """What holds for one route."""

    __slots__ = ("limit", "limits")

    def __init__(self, limit: Limit, limits: list[tuple[int, list[Action]]]) -> None:
        self.limit = limit
        self.limits = limits


class LocalRateLimitFilter(Filter):
    """The limits of a listener and of its routes."""

    __slots__ = ("_by_route", "_config", "_limits")

    def __init__(self, config: object) -> None:
        assert isinstance(config, LocalRateLimit)
        self._config: Final = config
        self._limits: dict[object, Limit] = {}
        # By route, which is one object for as long as this filter lives: both are of one snapshot.
        self._by_route: dict[CompiledRoute[Any] | None, Limited] = {}

    def begin(self, setting: Setting, before: Filter | None) -> None:
        known = before._limits if isinstance(before, LocalRateLimitFilter) else {}
        for place, config in _places(self._config, setting.routes):
            limit = known.get(place)
            if limit is None or limit.config != config:
                limit = Limit(config, setting.counters, setting.workers)
            self._limits[place] = limit

    def on_request(
        self, head: RequestHead, record: Record, route: CompiledRoute[Any] | None
    ) -> Reply | Transform | None:
        limited = self._by_route.get(route)
        if limited is None:
            limited = self._by_route[route] = self._of(route)
        if not limited.limit.config.enabled:
            return None
        return limited.limit.check(head, record, limited.limits, monotonic())

    def _of(self, route: CompiledRoute[Any] | None) -> Limited:
        place = route.local_rate_limit[0] if route is not None and route.local_rate_limit is not None else ""
        limit = self._limits[place]
        if limit.own:
            return Limited(limit, limit.own)
        found: list[tuple[int, list[Action]]] = []
        if route is not None and route.forward is not None:  # as in Envoy: what a route says counts where it forwards
            of_route, of_host = route.forward.rate_limits, route.host_rate_limits
            virtual_host = "INCLUDE" if route.forward.include_vh_rate_limits else limit.config.virtual_host
            said = list(of_route)
            if virtual_host == "INCLUDE" or (virtual_host == "OVERRIDE" and not of_route):
                said += of_host
            found = [(one.stage, [Action(action) for action in one.actions]) for one in said]
        return Limited(limit, found)


def _places(config: LocalRateLimit, routes: RouteConfiguration) -> list[tuple[object, LocalRateLimit]]:
    """Every limit by the place where it is said: "" is the listener."""
    found: list[tuple[object, LocalRateLimit]] = [("", config)]
    for host in routes.virtual_hosts:
        for route in host.routes:
            said = nearest(route, host, routes)
            if said is not None:
                found.append(said)
    return found
