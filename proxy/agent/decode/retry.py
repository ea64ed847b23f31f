"""RetryPolicy of routes (envoy.config.route.v3), and what Pillion adds to it in the route's metadata."""

from __future__ import annotations

from proxy.agent.decode.reader import Context, Reader, join
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


def read_retry_policy(reader: Reader, safe_on: frozenset[str] = frozenset()) -> RetryPolicy:
    """A RetryPolicy; `safe_on`: see read_retry_on_when_safe."""
    allowed = _conditions(reader.value("retry_on"), reader.context, join(reader.path, "retry_on"))
    for predicate in reader.children("retry_host_predicate"):
        # Another host is preferred in any case.
        if predicate.value("name") != _PREVIOUS_HOSTS:
            predicate.unsupported(f"only {_PREVIOUS_HOSTS} is supported", "name")
        predicate.opaque("typed_config")
    reader.value("host_selection_retry_max_attempts")  # a pick that leaves out who was tried needs no attempts
    base, longest = _back_off(reader)
    return RetryPolicy(
        allowed,
        reader.integer("num_retries", 1, 0, _UINT32),
        reader.seconds("per_try_timeout", 0.0),
        frozenset(reader.value("retriable_status_codes")),
        base,
        longest,
        _retry_after(reader),
        safe_on,
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


def read_retry_on_when_safe(reader: Reader) -> frozenset[str]:
    """A route's filter_metadata["pillion"].retry_on_when_safe: more conditions, as retry_on has them, for requests that
    may be repeated without harm: by their method (RFC 9110 §9.2.2), or because they have an Idempotency-Key."""
    metadata = reader.opaque("metadata")
    if "pillion" not in metadata.filter_metadata:
        return frozenset()
    found: frozenset[str] = frozenset()
    path = join(reader.path, 'metadata.filter_metadata["pillion"]')
    for name, value in metadata.filter_metadata["pillion"].fields.items():
        if name != "retry_on_when_safe":
            reader.context.error(join(path, name), "is not known; retry_on_when_safe is")
        elif value.WhichOneof("kind") != "string_value":
            reader.context.error(join(path, name), "must be a string")
        else:
            found = _conditions(value.string_value, reader.context, join(path, name))
    return found


def _conditions(value: str, context: Context, path: str) -> frozenset[str]:
    words = [word.strip() for word in value.split(",") if word.strip()]
    for word in words:
        if word not in _KNOWN:
            context.error(path, f"{word!r} is not a retry condition")
        elif word not in _SUPPORTED:
            context.unsupported(path, f"{word} is not supported, only {', '.join(sorted(_SUPPORTED))}")
    return frozenset(words) & _SUPPORTED
