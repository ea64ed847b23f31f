"""Faults, injected where a try meets its endpoint: below retries, outlier detection and timeouts, which see a delayed
or aborted try as if the endpoint had been slow or had answered so."""

from __future__ import annotations

from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.config.fault import Fault
from proxy.config.route import RouteConfiguration
from proxy.filters.fault import Abort, FaultPolicy
from proxy.http import grpc
from proxy.http.heads import ResponseHead, ResponseMessage
from proxy.worker.timers import Timed

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState
    from proxy.routing.table import CompiledRoute
    from proxy.telemetry.counters import Counters
    from proxy.worker.exchange import Exchange

DELAYED: Final = "DI"
ABORTED: Final = "FI"
"""Response flags (envoy.data.accesslog.v3.ResponseFlags: delay_injected, fault_injected)."""

_TEXT: Final = b"fault filter abort"


class Active:
    """How many tries of a listener are being delayed; it outlives configurations."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def read(self) -> float:
        """For the gauge."""
        return float(self.count)


class Faults:
    """The faults of one listener that has the filter, and of its routes."""

    __slots__ = ("_begun", "_by_route", "_counters", "_default", "_policies", "active")

    def __init__(
        self, name: str, config: Fault, routes: RouteConfiguration, counters: Counters, before: Faults | None
    ) -> None:
        """`before`: those of the listener's last configuration. A fault that was there goes on, and does not begin
        anew."""
        found = [config, routes.fault]
        for host in routes.virtual_hosts:
            found.append(host.fault)
            found += [route.fault for route in host.routes]
        now = monotonic()
        self._begun: dict[Fault, float] = {}
        self._policies: dict[Fault, FaultPolicy] = {}
        for fault in found:
            if fault is not None and fault not in self._policies:
                begun = now if before is None else before._begun.get(fault, now)
                self._begun[fault] = begun
                self._policies[fault] = FaultPolicy(fault, begun + fault.duration if fault.duration else 0.0)
        self._default = self._policies[config]
        # A route is one object for as long as this is: both are of one snapshot.
        self._by_route: dict[CompiledRoute[Any], FaultPolicy] = {}
        self._counters = counters
        self.active: Active = Active() if before is None else before.active
        counters.gauge(self.active.read, "fault_active", listener=name)

    def policy(self, route: CompiledRoute[Any]) -> FaultPolicy:
        """What holds for a route."""
        policy = self._by_route.get(route)
        if policy is None:
            fault = route.fault
            policy = self._by_route[route] = self._default if fault is None else self._policies[fault]
        return policy

    def inject(self, exchange: Exchange) -> bool:
        """Decide on a try. True: it is held back, and goes on by itself later, or has got its answer."""
        route, cluster = exchange.route, exchange.cluster
        assert route is not None
        assert cluster is not None
        policy = self.policy(route)
        now = monotonic()
        if not policy.applies(exchange.head, cluster.name, now):
            return False
        seconds = policy.delay(exchange.head, random)
        if seconds:
            if policy.max_active is None or self.active.count < policy.max_active:
                self._count("fault_delays_injected_total", cluster)
                self._injection(exchange).hold(policy, now + seconds)
                if route.per_try_timeout and exchange.message.done:
                    exchange.limit_try(route.per_try_timeout)
                return True
            self._count("fault_overflow_total", cluster)
        return self.abort(exchange, policy)

    def abort(self, exchange: Exchange, policy: FaultPolicy) -> bool:
        """Answer the try in the endpoint's place, if the fault says so."""
        found = policy.abort(exchange.head, random)
        if found is None:
            return False
        cluster = exchange.cluster
        assert cluster is not None
        self._count("fault_aborts_injected_total", cluster)
        self._injection(exchange).note(ABORTED)
        exchange.details = "fault_filter_abort"
        exchange.on_response(_answer(exchange, found))
        if not exchange.ended:  # it is tried again
            exchange.details = ""
        return True

    def _injection(self, exchange: Exchange) -> Injection:
        injection = exchange.injection
        if injection is None:
            exchange.injection = injection = Injection(exchange, self)
        return injection

    def _count(self, name: str, cluster: ClusterState) -> None:
        self._counters.values[self._counters.slot(name, cluster=cluster.name)] += 1


class Injection(Timed):
    """What faults did to one exchange: `flags`, comma-separated; `holding` while a try is delayed."""

    __slots__ = ("_exchange", "_faults", "_policy", "flags", "holding")

    def __init__(self, exchange: Exchange, faults: Faults) -> None:
        super().__init__()
        self._exchange = exchange
        self._faults = faults
        self._policy: FaultPolicy | None = None
        self.flags = ""
        self.holding = False

    def note(self, flag: str) -> None:
        """Add a flag, once."""
        self.flags = with_flags(self.flags, flag)

    def hold(self, policy: FaultPolicy, until: float) -> None:
        """Hold the try back."""
        self.note(DELAYED)
        self._policy = policy
        self.holding = True
        self._faults.active.count += 1
        self.deadline = until
        self._exchange.state.pool.timers.watch(self)

    def on_deadline(self, now: float) -> None:
        """The delay is over."""
        policy, exchange = self._policy, self._exchange
        assert policy is not None
        self._release()
        if not self._faults.abort(exchange, policy):
            exchange.reach()

    def cancel(self) -> None:
        """The try is given up."""
        if self.holding:
            self._exchange.state.pool.timers.forget(self)
            self._release()

    def _release(self) -> None:
        self.holding = False
        self._faults.active.count -= 1


def with_flags(flags: str, more: str) -> str:
    """Flags with those of `more` that they have not."""
    for flag in more.split(","):
        if flag not in flags.split(","):
            flags = f"{flags},{flag}" if flags else flag
    return flags


def _answer(exchange: Exchange, abort: Abort) -> ResponseMessage:
    """The answer of an endpoint that fails so; to a gRPC call in gRPC's words."""
    if grpc.is_request(exchange.head):
        code = grpc.code_of(abort.http_status) if abort.http_status is not None else b"%d" % abort.grpc_status
        message = ResponseMessage(ResponseHead(200, b"", grpc.error_headers(code, _TEXT)))
    else:
        status = abort.http_status
        if status is None:
            status = grpc.http_status(b"%d" % abort.grpc_status)
        message = ResponseMessage(ResponseHead(status, b"", [(b"content-type", b"text/plain")]))
        if status not in (204, 205, 304):
            message.head.length = len(_TEXT)
            if exchange.head.method != b"HEAD":
                message.body = [_TEXT]
    message.done = True
    return message
