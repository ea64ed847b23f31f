"""May this request be sent again, and when? (envoy.config.route.v3.RetryPolicy, RFC 9110 §9.2.2)

A request that reached nobody may always go elsewhere. One that somebody may have acted on is repeated on the conditions
that its route names: some of them for every request, some only where repeating it changes nothing.
"""

from __future__ import annotations

from typing import Final

from proxy.config.route import RetryPolicy

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""Methods that may be repeated (RFC 9110 §9.2.2)."""
_UNSENT: Final = frozenset(("connect-failure", "refused-stream", "reset-before-request", "reset", "5xx"))
_GRPC: Final = {
    b"1": "cancelled",
    b"4": "deadline-exceeded",
    b"8": "resource-exhausted",
    b"13": "internal",
    b"14": "unavailable",
}
"""grpc-status → the condition that names it."""


def conditions(policy: RetryPolicy, method: bytes, key: bytes | None) -> frozenset[str]:
    """The conditions that hold for a request; `key` is its Idempotency-Key."""
    if policy.safe_on and (method in IDEMPOTENT or key is not None):
        return policy.retry_on | policy.safe_on
    return policy.retry_on


def on_unsent(allowed: frozenset[str]) -> bool:
    """The request did not reach the upstream: the connection failed, or the peer says that nothing was done."""
    return not allowed.isdisjoint(_UNSENT)


def on_no_answer(allowed: frozenset[str]) -> bool:
    """The request was sent, and its connection or stream ended before a response began."""
    return not allowed.isdisjoint(("reset", "5xx"))


def on_try_timeout(allowed: frozenset[str]) -> bool:
    """The time of one try (per_try_timeout) has passed: Envoy takes it for a 504."""
    return not allowed.isdisjoint(("reset", "5xx", "gateway-error"))


def on_status(allowed: frozenset[str], codes: frozenset[int], status: int) -> bool:
    """A response with this status came. `codes`: the policy's retriable_status_codes."""
    if status >= 500:
        if "5xx" in allowed or (502 <= status <= 504 and "gateway-error" in allowed):
            return True
    elif status == 409 and "retriable-4xx" in allowed:
        return True
    return status in codes and "retriable-status-codes" in allowed


def on_grpc_status(allowed: frozenset[str], status: bytes) -> bool:
    """A gRPC call was answered with this grpc-status, and nothing else."""
    return _GRPC.get(status) in allowed


def on_stale(method: bytes, reused: bool) -> bool:
    """A kept-alive connection ended before any byte of the response: the peer most likely closed it while idle.

    Clients repeat such a request once on a fresh connection when the method allows it (RFC 9112 §9.3.1)."""
    return reused and method in IDEMPOTENT


def back_off(policy: RetryPolicy, retry: int, draw: float) -> float:
    """Seconds to wait before the retry number `retry`, counted from 1: full jitter over an interval that doubles.
    `draw` is uniform in [0, 1)."""
    interval: float = policy.base_interval * 2.0 ** min(retry - 1, 30)
    return draw * min(interval, policy.max_interval)


def pushback(value: bytes) -> float | None:
    """Seconds that grpc-retry-pushback-ms asks for; None when it says that there must be no retry (gRFC A6)."""
    return int(value) / 1000 if value.isdigit() and len(value) <= 9 else None


def retry_after(value: bytes) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110 §10.2.3), as delay-seconds; None when it is none. A date is
    none: what clock it is of nobody knows."""
    return float(int(value)) if value.isdigit() and len(value) <= 9 else None
