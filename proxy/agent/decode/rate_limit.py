"""Rate limits: envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, envoy.config.route.v3.RateLimit."""

from __future__ import annotations

from typing import Literal

from proxy.agent.decode import types
from proxy.agent.decode.fault import read_fraction
from proxy.agent.decode.header_options import read_header_options
from proxy.agent.decode.matchers import decode_header_matcher, decode_header_name
from proxy.agent.decode.reader import Reader
from proxy.config.rate_limit import (
    LimitedDescriptor,
    LocalRateLimit,
    RateLimit,
    RateLimitAction,
    TokenBucketConfig,
)

PEER = "connection.uri_san_peer_certificate"
"""The one expression of an expr.v3.Descriptor that is understood."""

_MIN_FILL = 0.05  # Envoy's, of its timers
_MAX_STAGE = 10
_VIRTUAL_HOST: dict[str, Literal["OVERRIDE", "INCLUDE", "IGNORE"]] = {
    "OVERRIDE": "OVERRIDE",
    "INCLUDE": "INCLUDE",
    "IGNORE": "IGNORE",
}


def read_local_rate_limit(reader: Reader) -> LocalRateLimit:
    """A LocalRateLimit."""
    reader.strict = True  # a limit that is not the one configured would be no limit to rely on
    stat_prefix = reader.required("stat_prefix")
    bucket = reader.child("token_bucket")
    descriptors = _descriptors(reader)
    status = reader.child("status")
    code = status.value("code") if status else 0
    stage: int = reader.value("stage")
    if stage > _MAX_STAGE:
        reader.error(f"must be at most {_MAX_STAGE}, not {stage}", "stage")
    return LocalRateLimit(
        stat_prefix,
        _bucket(bucket) if bucket else None,
        descriptors,
        _share(reader, "filter_enabled"),
        _share(reader, "filter_enforced"),
        code if code >= 400 else 429,  # as in Envoy
        read_header_options(reader, "request_headers_to_add_when_not_enforced"),
        read_header_options(reader, "response_headers_to_add"),
        stage,
        reader.value("local_rate_limit_per_downstream_connection"),
        reader.enum("enable_x_ratelimit_headers", {"OFF": False, "DRAFT_VERSION_03": True}),
        reader.wrapped("always_consume_default_token_bucket", True),
        reader.value("rate_limited_as_resource_exhausted"),
        read_rate_limits(reader),
        reader.enum("vh_rate_limits", _VIRTUAL_HOST),
        reader.integer("max_dynamic_descriptors", 20, 1, 1_000_000),
    )


def read_rate_limits(reader: Reader) -> tuple[RateLimit, ...]:
    """The rate_limits of a RouteAction, a VirtualHost or a LocalRateLimit."""
    return tuple(_rate_limit(inner) for inner in reader.children("rate_limits"))


def _share(reader: Reader, name: str) -> float:
    """A RuntimeFractionalPercent, from 0 to 1. There is no runtime here, so the default value holds."""
    inner = reader.child(name)
    if inner is None:
        return 0.0
    inner.opaque("runtime_key")
    fraction = inner.child("default_value")
    if fraction is None:
        inner.error("is required", "default_value")
    return read_fraction(fraction)


def _bucket(reader: Reader) -> TokenBucketConfig:
    most: int = reader.value("max_tokens")
    if not most:
        reader.error("must be more than 0", "max_tokens")
    each: int = reader.wrapped("tokens_per_fill", 1)
    if not each:
        reader.error("must be more than 0", "tokens_per_fill")
    if not reader.has("fill_interval"):
        reader.error("is required", "fill_interval")
    interval = reader.seconds("fill_interval", _MIN_FILL)
    if interval < _MIN_FILL:
        reader.error(f"must be at least {_MIN_FILL}s, not {interval:g}s", "fill_interval")
    return TokenBucketConfig(most, each, interval or _MIN_FILL)


def _descriptors(reader: Reader) -> tuple[LimitedDescriptor, ...]:
    found: list[LimitedDescriptor] = []
    for inner in reader.children("descriptors"):
        entries = [(entry.required("key"), entry.value("value")) for entry in inner.children("entries")]
        if not entries:
            inner.error("needs at least one entry", "entries")
        bucket = inner.child("token_bucket")
        if bucket is None:
            inner.error("is required", "token_bucket")
            continue
        limited = LimitedDescriptor(tuple(entries), _bucket(bucket))
        if any(other.entries == limited.entries for other in found):
            inner.error("these are the entries of another descriptor", "entries")
        found.append(limited)
    return tuple(found)


def _rate_limit(reader: Reader) -> RateLimit:
    reader.strict = True  # a descriptor without one of its entries is another descriptor
    stage = reader.integer("stage", 0, 0, _MAX_STAGE)
    actions = tuple(found for inner in reader.children("actions") if (found := _action(inner)) is not None)
    if not reader.message.actions:
        reader.error("needs at least one action", "actions")
    return RateLimit(actions, stage)


def _action(reader: Reader) -> RateLimitAction | None:
    kind = reader.one_of(
        "action_specifier", "request_headers", "remote_address", "generic_key", "header_value_match", "extension"
    )
    inner = reader.child(kind) if kind else None
    if inner is None:
        return None
    if kind == "request_headers":
        header = decode_header_name(inner, "header_name")
        return RateLimitAction(
            "request_headers", inner.required("descriptor_key"), "", header, inner.value("skip_if_absent")
        )
    if kind == "remote_address":
        return RateLimitAction("remote_address", "remote_address")
    if kind == "generic_key":
        value = inner.required("descriptor_value")
        return RateLimitAction("generic_key", inner.text("descriptor_key") or "generic_key", value)
    if kind == "header_value_match":
        headers = tuple(decode_header_matcher(matcher) for matcher in inner.children("headers"))
        if not headers:
            inner.error("needs at least one header", "headers")
        return RateLimitAction(
            "header_value_match",
            inner.text("descriptor_key") or "header_match",
            inner.required("descriptor_value"),
            expect_match=inner.wrapped("expect_match", True),
            headers=headers,
        )
    return _peer(inner)


def _peer(reader: Reader) -> RateLimitAction | None:
    """Of the extensions the one that tells the caller's identity."""
    reader.required("name")
    found = reader.any("typed_config", "rate limit action", (types.RATE_LIMIT_EXPRESSION,), needed=True)
    if found is None:
        return None
    inner = found[1]
    key = inner.required("descriptor_key")
    if inner.value("text") != PEER:
        inner.unsupported(f"only {PEER} is supported", "text")
    return RateLimitAction("peer", key, skip_if_absent=inner.value("skip_if_error"))
