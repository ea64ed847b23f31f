"""RetryPolicy of routes (envoy.config.route.v3), and what Pillion adds to it in the route's metadata."""

from __future__ import annotations

from proxy.agent.decode.reader import Reader, join
from proxy.config.route import RetryPolicy

_SUPPORTED = frozenset({
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx",
    "retriable-status-codes", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
})  # fmt: skip
"""The conditions that proxy.policy.retry decides on."""
# Envoy: x-envoy-retry-on and x-envoy-retry-grpc-on.
_KNOWN = _SUPPORTED | {"envoy-ratelimited", "retriable-headers", "http3-post-connect-failure"}
_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
_UINT32 = 2**32 - 1


def read_retry_policy(reader: Reader, safe_only: bool = False) -> RetryPolicy:
    """A RetryPolicy; `safe_only`: see is_safe_only."""
    words = [word.strip() for word in reader.value("retry_on").split(",") if word.strip()]
    for word in words:
        if word not in _KNOWN:
            reader.error(f"{word!r} is not a retry condition", "retry_on")
        elif word not in _SUPPORTED:
            reader.unsupported(f"{word} is not supported, only {', '.join(sorted(_SUPPORTED))}", "retry_on")
    for predicate in reader.children("retry_host_predicate"):
        # Another host is preferred in any case.
        if predicate.value("name") != _PREVIOUS_HOSTS:
            predicate.unsupported(f"only {_PREVIOUS_HOSTS} is supported", "name")
        predicate.opaque("typed_config")
    reader.value("host_selection_retry_max_attempts")  # a pick that leaves out who was tried needs no attempts
    base, longest = _back_off(reader)
    return RetryPolicy(
        frozenset(words) & _SUPPORTED,
        reader.integer("num_retries", 1, 0, _UINT32),
        reader.seconds("per_try_timeout", 0.0),
        frozenset(reader.value("retriable_status_codes")),
        base,
        longest,
        _retry_after(reader),
        safe_only,
    )


def _back_off(reader: Reader) -> tuple[float, float]:
    inner = reader.child("retry_back_off")
    if inner is None:
        return 0.025, 0.25
    base = inner.seconds("base_interval", 0.0, positive=True)
    if not inner.has("base_interval"):
        inner.error("is required", "base_interval")
    longest = inner.seconds("max_interval", 10 * base, positive=True)
    if longest < base:
        inner.error("must not be below base_interval", "max_interval")
    return base, longest


def _retry_after(reader: Reader) -> float:
    """The longest that a Retry-After may ask for; 0 when it is not to be looked at."""
    inner = reader.child("rate_limited_retry_back_off")
    if inner is None:
        return 0.0
    for header in inner.children("reset_headers"):
        if header.value("name").lower() != "retry-after":
            header.unsupported("only Retry-After is supported", "name")
        header.enum("format", {"SECONDS": None})
    return inner.seconds("max_interval", 300.0, positive=True)


def is_safe_only(reader: Reader) -> bool:
    """A route's filter_metadata["pillion"].retry_safe_only: what somebody may have acted on is repeated only if that
    changes nothing, by its method or by an Idempotency-Key."""
    metadata = reader.opaque("metadata")
    if "pillion" not in metadata.filter_metadata:
        return False
    found = False
    path = join(reader.path, 'metadata.filter_metadata["pillion"]')
    for name, value in metadata.filter_metadata["pillion"].fields.items():
        if name != "retry_safe_only":
            reader.context.error(join(path, name), "is not known; retry_safe_only is")
        elif value.WhichOneof("kind") != "bool_value":
            reader.context.error(join(path, name), "must be true or false")
        else:
            found = value.bool_value
    return found
