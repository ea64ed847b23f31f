"""The route table: from a request head to the route that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from proxy.config.balance import Metadata
from proxy.config.filters import CorsPolicy
from proxy.config.rate_limit import nearest
from proxy.config.route import (
    DirectResponse,
    ForwardAction,
    HashPolicy,
    RetryPolicy,
    Route,
    RouteConfiguration,
    VirtualHost,
)
from proxy.routing.matchers import Predicate, Request, route
from proxy.routing.mutations import Format, HeaderEdits, compile_edits

Target = TypeVar("Target")

_MAX_CACHED_HOSTS = 1024


def _no_operators(form: str) -> Format:
    raise ValueError(f"nothing here can evaluate {form!r}")


class Defaults:
    """What a listener gives its routes: its own timeouts, where a route says nothing (seconds, 0 for none), the
    compiler of values with command operators, and whether it has a gRPC-Web filter."""

    __slots__ = ("compile_value", "grpc_web", "idle_timeout", "max_stream_duration")

    def __init__(
        self,
        idle_timeout: float = 0.0,
        max_stream_duration: float = 0.0,
        compile_value: Callable[[str], Format] = _no_operators,
        grpc_web: bool = False,
    ) -> None:
        self.idle_timeout = idle_timeout
        self.max_stream_duration = max_stream_duration
        self.compile_value = compile_value
        self.grpc_web = grpc_web


class CompiledRoute(Generic[Target]):
    """A route with its clusters resolved. `targets` holds (cumulative weight, target); `total` is the last.

    `metadata` says what an endpoint of each target must have, if that is anything. `cors` is what it, its virtual
    host and its route configuration say together, `fault` and `local_rate_limit` what the nearest of them says;
    `grpc_timeout_header_max` and `grpc_timeout_header_offset` are ForwardAction's."""

    __slots__ = (
        "action",
        "auto_host_rewrite",
        "cors",
        "ends_connect",
        "fault",
        "forward",
        "grpc_timeout_header_max",
        "grpc_timeout_header_offset",
        "grpc_web_disabled",
        "hash_policy",
        "host_rate_limits",
        "host_rewrite",
        "idle_timeout",
        "local_rate_limit",
        "matches",
        "max_stream_duration",
        "metadata",
        "name",
        "per_try_timeout",
        "prefix",
        "prefix_rewrite",
        "request_edits",
        "response_edits",
        "retry",
        "targets",
        "timeout",
        "total",
        "upgrades",
    )

    def __init__(
        self,
        config: Route,
        host: VirtualHost,
        configuration: RouteConfiguration,
        resolve: Callable[[str], Target],
        defaults: Defaults,
    ) -> None:
        self.name = config.name
        self.action: ForwardAction | DirectResponse = config.action
        self.forward = config.action if isinstance(config.action, ForwardAction) else None
        self.matches: Predicate | None = route(config.match, defaults.grpc_web)
        self.prefix = config.match.value.encode()
        self.prefix_rewrite: bytes | None = None
        self.host_rewrite: bytes | None = None
        self.targets: tuple[tuple[int, Target], ...] = ()
        self.metadata: tuple[Metadata, ...] = ()
        self.total = 0
        self.timeout = 0.0
        self.retry: RetryPolicy | None = None
        self.per_try_timeout = 0.0
        self.upgrades: dict[bytes, bool] = {}
        self.ends_connect = False
        self.auto_host_rewrite = False
        self.idle_timeout = defaults.idle_timeout
        self.max_stream_duration = defaults.max_stream_duration
        self.grpc_timeout_header_max: float | None = None
        self.grpc_timeout_header_offset = 0.0
        self.hash_policy: tuple[HashPolicy, ...] = ()
        self.cors: CorsPolicy | None = configuration.cors
        for policy in (host.cors, config.cors):
            if policy is not None:
                self.cors = policy.over(self.cors)
        self.fault = config.fault or host.fault or configuration.fault
        self.local_rate_limit = nearest(config, host, configuration)
        self.host_rate_limits = host.rate_limits
        self.grpc_web_disabled = config.grpc_web_disabled or host.grpc_web_disabled or configuration.grpc_web_disabled
        levels = (config.headers, host.headers, configuration.headers)
        if configuration.most_specific_header_mutations_wins:
            levels = levels[::-1]
        compile_value = defaults.compile_value
        self.request_edits: HeaderEdits | None = compile_edits(
            [(level.request_add, level.request_remove) for level in levels], compile_value
        )
        self.response_edits: HeaderEdits | None = compile_edits(
            [(level.response_add, level.response_remove) for level in levels], compile_value
        )
        if self.forward is not None:
            targets = []
            metadata = []
            for cluster in self.forward.clusters:
                self.total += cluster.weight
                if cluster.weight:
                    targets.append((self.total, resolve(cluster.name)))
                    metadata.append(cluster.metadata_match)
            self.targets = tuple(targets)
            self.metadata = tuple(metadata) if any(metadata) else ()
            self.timeout = self.forward.timeout
            self.retry = self.forward.retry
            if self.retry is not None:
                self.per_try_timeout = self.retry.per_try_timeout
            self.upgrades = {name.encode(): enabled for name, enabled in self.forward.upgrades}
            self.ends_connect = self.forward.ends_connect
            if self.forward.prefix_rewrite is not None:
                self.prefix_rewrite = self.forward.prefix_rewrite.encode()
            if self.forward.host_rewrite is not None:
                self.host_rewrite = self.forward.host_rewrite.encode()
            self.auto_host_rewrite = self.forward.auto_host_rewrite
            if self.forward.idle_timeout is not None:
                self.idle_timeout = self.forward.idle_timeout
            if self.forward.max_stream_duration is not None:
                self.max_stream_duration = self.forward.max_stream_duration
            self.grpc_timeout_header_max = self.forward.grpc_timeout_header_max
            self.grpc_timeout_header_offset = self.forward.grpc_timeout_header_offset
            self.hash_policy = self.forward.hash_policy

    def target(self, draw: Callable[[], float]) -> Target:
        """One of the targets, by weight. `draw()` is uniform in [0, 1)."""
        targets = self.targets
        if len(targets) == 1:
            return targets[0][1]
        point = draw() * self.total
        for bound, target in targets:
            if point < bound:
                return target
        return targets[-1][1]

    def target_index(self, draw: Callable[[], float]) -> int:
        """The same, as an index of `targets` and `metadata`."""
        point = draw() * self.total
        for index, (bound, _) in enumerate(self.targets):
            if point < bound:
                return index
        return len(self.targets) - 1

    def rewritten(self, target: bytes) -> bytes:
        """The request target for the upstream (RouteAction.prefix_rewrite)."""
        if self.prefix_rewrite is None:
            return target
        return self.prefix_rewrite + target[len(self.prefix) :]


_NO_DEFAULTS = Defaults()


class RouteTable(Generic[Target]):
    """A RouteConfiguration, compiled. `resolve` turns a cluster's name into what the request needs of it.

    Routes with a connect_matcher are for CONNECT alone, and CONNECT is for them alone, as in Envoy: they stand in a
    table of their own, `connect`, so that other requests never look at them."""

    __slots__ = ("_cache", "_connect", "_default", "_exact", "_ignore_port", "_prefixes", "_suffixes", "name")

    def __init__(
        self,
        config: RouteConfiguration,
        resolve: Callable[[str], Target],
        defaults: Defaults = _NO_DEFAULTS,
        connect: bool = False,
    ) -> None:
        self.name = config.name
        self._ignore_port = config.ignore_port_in_host_matching
        self._exact: dict[bytes, tuple[CompiledRoute[Target], ...]] = {}
        self._suffixes: list[tuple[bytes, tuple[CompiledRoute[Target], ...]]] = []
        self._prefixes: list[tuple[bytes, tuple[CompiledRoute[Target], ...]]] = []
        self._default: tuple[CompiledRoute[Target], ...] = ()
        self._cache: dict[bytes, tuple[CompiledRoute[Target], ...]] = {}
        for host in config.virtual_hosts:
            routes = [route for route in host.routes if (route.match.kind == "connect_matcher") is connect]
            self._add(host, tuple([CompiledRoute(entry, host, config, resolve, defaults) for entry in routes]))
        self._suffixes.sort(key=lambda pair: -len(pair[0]))
        self._prefixes.sort(key=lambda pair: -len(pair[0]))
        self._connect: RouteTable[Target] | None = None
        kinds = {entry.match.kind for host in config.virtual_hosts for entry in host.routes}
        if "connect_matcher" in kinds and not connect:
            self._connect = RouteTable(config, resolve, defaults, connect=True)

    def _add(self, host: VirtualHost, routes: tuple[CompiledRoute[Target], ...]) -> None:
        for domain in host.domains:
            name = domain.lower().encode()
            if name == b"*":
                self._default = routes
            elif name.startswith(b"*"):
                self._suffixes.append((name[1:], routes))
            elif name.endswith(b"*"):
                self._prefixes.append((name[:-1], routes))
            else:
                self._exact[name] = routes

    def _host(self, authority: bytes) -> tuple[CompiledRoute[Target], ...]:
        name = authority.lower()
        if self._ignore_port:
            name = without_port(name)
        routes = self._exact.get(name)
        if routes is None:
            # A wildcard stands for at least one character (envoy.config.route.v3.VirtualHost.domains).
            for suffix, candidates in self._suffixes:
                if len(name) > len(suffix) and name.endswith(suffix):
                    routes = candidates
                    break
            else:
                for prefix, candidates in self._prefixes:
                    if len(name) > len(prefix) and name.startswith(prefix):
                        routes = candidates
                        break
                else:
                    routes = self._default
        if len(authority) <= 261:
            if len(self._cache) >= _MAX_CACHED_HOSTS:
                self._cache.clear()
            self._cache[authority] = routes
        return routes

    def match_connect(self, head: Request) -> CompiledRoute[Target] | None:
        """The route that takes this CONNECT request, or None."""
        return None if self._connect is None else self._connect.match(head)

    def match(self, head: Request) -> CompiledRoute[Target] | None:
        """The route that takes this request, which is no CONNECT, or None."""
        routes = self._cache.get(head.authority)
        if routes is None:
            routes = self._host(head.authority)
        for candidate in routes:
            matches = candidate.matches
            if matches is None or matches(head):
                return candidate
        return None


def without_port(authority: bytes) -> bytes:
    """host of host:port; an IPv6 literal keeps its brackets (RFC 3986 §3.2)."""
    host, colon, port = authority.rpartition(b":")
    return host if colon and (port.isdigit() or not port) and (b":" not in host or host.endswith(b"]")) else authority
