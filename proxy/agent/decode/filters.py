"""HTTP filters: the http_filters of an HttpConnectionManager, and the typed_per_filter_config of what a route is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.any_pb2 import Any

from proxy.agent.decode import types
from proxy.agent.decode.fault import DENOMINATORS, read_fault
from proxy.agent.decode.matchers import decode_string_matcher
from proxy.agent.decode.rate_limit import read_local_rate_limit
from proxy.agent.decode.reader import Reader, join, shown_type
from proxy.config.fault import Fault
from proxy.config.filters import Cors, CorsPolicy, GrpcWeb
from proxy.config.listener import HttpFilter
from proxy.config.rate_limit import LocalRateLimit

CORS_NAME = "envoy.filters.http.cors"
GRPC_WEB_NAME = "envoy.filters.http.grpc_web"
FAULT_NAME = "envoy.filters.http.fault"
LOCAL_RATE_LIMIT_NAME = "envoy.filters.http.local_ratelimit"

# Routes speak to a filter by the name of its entry, and are decoded apart from it: so the name must be the usual one.
_NAMES = {
    types.CORS: CORS_NAME,
    types.GRPC_WEB: GRPC_WEB_NAME,
    types.FAULT: FAULT_NAME,
    types.LOCAL_RATE_LIMIT: LOCAL_RATE_LIMIT_NAME,
}
_CONFIGS: dict[str, Callable[[Reader], object]] = {
    types.CORS: lambda reader: Cors(),
    types.GRPC_WEB: lambda reader: GrpcWeb(),
    types.FAULT: read_fault,
    types.LOCAL_RATE_LIMIT: read_local_rate_limit,
}


class PerRoute(NamedTuple):
    """What a typed_per_filter_config says."""

    cors: CorsPolicy | None = None
    grpc_web_disabled: bool = False
    fault: Fault | None = None
    local_rate_limit: LocalRateLimit | None = None


def read_http_filters(reader: Reader) -> tuple[HttpFilter, ...]:
    """The filters before the router. Envoy: the router is the last one, and it is always there."""
    filters: list[HttpFilter] = []
    names: set[str] = set()
    last = ""
    for entry in reader.children("http_filters"):
        name = entry.required("name")
        if name and name in names:
            entry.error(f"{name!r} is the name of another filter", "name")
        names.add(name)
        if entry.which("config_type") == "config_discovery":
            last = "unknown"
            continue  # reported as unsupported by done()
        found = entry.any("typed_config", "filter", (types.ROUTER, *_NAMES))
        if last == types.ROUTER:
            entry.error("no filter can stand behind the router")
        last = found[0] if found else "unknown"
        if found and last in _NAMES:
            if name != _NAMES[last]:
                entry.unsupported(f"must be {_NAMES[last]}, by which routes know it, not {name!r}", "name")
            filters.append(HttpFilter(name, types.PREFIX + last, _CONFIGS[last](found[1])))
    if last != types.ROUTER:
        reader.error(f"must end with the router (type.googleapis.com/{types.ROUTER})", "http_filters")
    return tuple(filters)


def read_per_filter_config(reader: Reader) -> PerRoute:
    """The typed_per_filter_config of a Route, a VirtualHost or a RouteConfiguration."""
    cors: CorsPolicy | None = None
    grpc_web_disabled = False
    fault: Fault | None = None
    limit: LocalRateLimit | None = None
    entries = reader.value("typed_per_filter_config")
    for name in sorted(entries):
        path = join(reader.path, f'typed_per_filter_config["{name}"]')
        if name == CORS_NAME:
            cors = _cors(reader, entries[name], path)
        elif name == GRPC_WEB_NAME:
            grpc_web_disabled = _switched_off(reader, entries[name], path)
        elif name == FAULT_NAME:
            inner, off = _config(reader, entries[name], path, types.FAULT)
            fault = read_fault(inner) if inner else None
            if off:
                fault = Fault()
        elif name == LOCAL_RATE_LIMIT_NAME:
            inner, off = _config(reader, entries[name], path, types.LOCAL_RATE_LIMIT)
            limit = read_local_rate_limit(inner) if inner else None
            if off:
                limit = LocalRateLimit("")
        else:
            reader.context.unsupported(path, f"only {', '.join(_NAMES.values())} are supported")
    return PerRoute(cors, grpc_web_disabled, fault, limit)


def _config(reader: Reader, packed: Any, path: str, kind: str) -> tuple[Reader | None, bool]:
    """A filter's own config of the type `kind`, perhaps in a FilterConfig; and whether that says disabled."""
    disabled = False
    if types.type_name(packed) == types.FILTER_CONFIG:
        found = reader.unpack(packed, path)
        if found is None:
            return None, False
        wrapper = found[1]
        disabled = wrapper.value("disabled")
        if not wrapper.has("config"):
            if not disabled:
                wrapper.error("needs a config, or disabled: true")
            return None, True
        packed, path = wrapper.value("config"), join(path, "config")
    if types.type_name(packed) != kind:
        reader.context.error(path, f"must be a {kind}, not {shown_type(packed)}")
        return None, False
    found = reader.unpack(packed, path)
    return (found[1], disabled) if found else (None, disabled)


def _cors(reader: Reader, packed: Any, path: str) -> CorsPolicy | None:
    kind = types.type_name(packed)
    if kind == types.FILTER_CONFIG:
        found = reader.unpack(packed, path)
        if found is None:
            return None
        wrapper = found[1]
        disabled = wrapper.value("disabled")
        if not wrapper.has("config"):
            if not disabled:
                wrapper.error("needs a config, or disabled: true")
            return CorsPolicy(enabled=False)
        policy = _policy(wrapper, wrapper.value("config"), join(path, "config"))
        return CorsPolicy(enabled=False) if disabled else policy
    return _policy(reader, packed, path)


def _policy(reader: Reader, packed: Any, path: str) -> CorsPolicy | None:
    if types.type_name(packed) != types.CORS_POLICY:
        reader.context.error(path, f"must be a {types.CORS_POLICY}, not {shown_type(packed)}")
        return None
    found = reader.unpack(packed, path)
    if found is None:
        return None
    policy = found[1]
    enabled = _percent(policy, "filter_enabled", True)
    if _percent(policy, "shadow_enabled", False) and not enabled:  # else it changes nothing
        policy.unsupported("nothing counts what a policy that is off would have allowed", "shadow_enabled")
    return CorsPolicy(
        tuple(decode_string_matcher(matcher) for matcher in policy.children("allow_origin_string_match")),
        policy.ascii("allow_methods"),
        policy.ascii("allow_headers"),
        policy.ascii("expose_headers"),
        policy.ascii("max_age"),
        enabled,
        policy.wrapped("allow_credentials", None),
        policy.wrapped("allow_private_network_access", None),
        policy.wrapped("forward_not_matching_preflights", None),
    )


def _percent(reader: Reader, name: str, absent: bool) -> bool:
    """A RuntimeFractionalPercent that is all or nothing. There is no runtime here, so the default value holds."""
    inner = reader.child(name)
    if inner is None:
        return absent
    inner.opaque("runtime_key")
    fraction = inner.child("default_value")
    if fraction is None:
        inner.error("is required", "default_value")
        return absent
    numerator = fraction.value("numerator")
    denominator = fraction.enum("denominator", DENOMINATORS)
    if 0 < numerator < denominator:
        fraction.unsupported(f"only 0 and 100 percent are supported, not {numerator}/{denominator}")
    return bool(numerator >= denominator)


def _switched_off(reader: Reader, packed: Any, path: str) -> bool:
    """Of gRPC-Web a route can only say that it is off; Envoy has nothing else to say, either."""
    if types.type_name(packed) != types.FILTER_CONFIG:
        reader.context.error(path, f"must be a {types.FILTER_CONFIG}, not {shown_type(packed)}")
        return False
    found = reader.unpack(packed, path)
    if found is not None and not found[1].value("disabled"):
        found[1].error("must say disabled: true; there is nothing else to configure")
    return found is not None
