"""RouteConfiguration and what is in it (envoy.config.route.v3)."""

from __future__ import annotations

import re

from google.protobuf.message import Message

from proxy.agent.decode import types
from proxy.agent.decode.filters import read_per_filter_config
from proxy.agent.decode.hash_policy import read_hash_policies
from proxy.agent.decode.header_options import read_header_mutations
from proxy.agent.decode.lb_metadata import read_lb_metadata
from proxy.agent.decode.matchers import (
    decode_data,
    decode_header_matcher,
    decode_query_parameter_matcher,
    decode_regex,
)
from proxy.agent.decode.rate_limit import read_rate_limits
from proxy.agent.decode.reader import Reader, decode, printable
from proxy.agent.decode.retry import read_retry_on_when_safe, read_retry_policy
from proxy.agent.decode.upgrades import read_upgrades
from proxy.config.route import (
    DirectResponse,
    ForwardAction,
    PathSpecifier,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)

_MAX_BODY = 4096  # RouteConfiguration.max_direct_response_body_size_bytes, Envoy's default
_MAX_WEIGHT = 2**32 - 1
_SEPARATED_PREFIX = re.compile(r"[^?#]+[^?#/]")  # the proto's own validation rule


def decode_route_configuration(message: Message, unsupported: list[str] | None = None) -> RouteConfiguration:
    """A RouteConfiguration, or the Any that holds it. Errors: DecodeError.

    `unsupported`: a list collects what is not supported as warnings; None makes each an error.
    """
    return decode(
        message,
        types.ROUTE_CONFIGURATION,
        "route configuration",
        "name",
        read_route_configuration,
        unsupported,
    )


def read_route_configuration(reader: Reader) -> RouteConfiguration:
    """The same, for a RouteConfiguration inside of another message."""
    hosts: list[VirtualHost] = []
    names: set[str] = set()
    owners: dict[str, str] = {}
    for inner in reader.children("virtual_hosts"):
        host = _virtual_host(inner, owners)
        if host.name in names:
            inner.error(f"{host.name!r} is the name of another virtual host", "name")
        names.add(host.name)
        hosts.append(host)
    return RouteConfiguration(
        reader.text("name"),
        tuple(hosts),
        reader.value("ignore_port_in_host_matching"),
        read_header_mutations(reader),
        reader.value("most_specific_header_mutations_wins"),
        *read_per_filter_config(reader),
    )


def _virtual_host(reader: Reader, owners: dict[str, str]) -> VirtualHost:
    """`owners` maps each domain of this route configuration to its virtual host: one domain, one host."""
    name = reader.required("name")
    reader.opaque("metadata")
    domains: list[str] = []
    for i, given in enumerate(reader.value("domains")):
        domain = given.lower()  # hosts are compared without case
        where = f"domains[{i}]"
        if not domain or "*" in domain[1:-1] or domain == "**" or not printable(domain):
            reader.error(f"{given!r} is not a domain: a wildcard (*) stands alone, first or last", where)
        elif domain in owners:
            reader.error(f"{given!r} is already served by virtual host {owners[domain]!r}", where)
        owners.setdefault(domain, name)
        domains.append(domain)
    if not domains:
        reader.error("needs at least one domain", "domains")
    routes = (_route(inner) for inner in reader.children("routes"))
    found = tuple(r for r in routes if r is not None)
    filters = read_per_filter_config(reader)
    limits = read_rate_limits(reader)
    return VirtualHost(name, tuple(domains), found, read_header_mutations(reader), *filters, limits)


def _route(reader: Reader) -> Route | None:
    name = reader.text("name")
    safe_on = read_retry_on_when_safe(reader)
    inner = reader.child("match")
    if inner is None:
        reader.error("is required", "match")
    match = _match(inner) if inner else RouteMatch("prefix", "/")
    headers = read_header_mutations(reader)
    filters = read_per_filter_config(reader)
    kind = reader.one_of("action", "route", "direct_response")
    if kind == "route" and (action := reader.child("route")):
        return Route(match, _forward(action, safe_on), name, headers, *filters)
    if kind == "direct_response" and (direct := reader.child("direct_response")):
        return Route(match, _direct_response(direct), name, headers, *filters)
    return None


def _match(reader: Reader) -> RouteMatch:
    reader.strict = True  # a condition left out would let other requests in
    case_sensitive = reader.wrapped("case_sensitive", True)
    headers = tuple(decode_header_matcher(r) for r in reader.children("headers"))
    queries = tuple(decode_query_parameter_matcher(r) for r in reader.children("query_parameters"))
    grpc = reader.child("grpc") is not None
    kind, value = _path(reader)
    return RouteMatch(kind, value, case_sensitive, headers, queries, grpc)


def _path(reader: Reader) -> tuple[PathSpecifier, str]:
    kind = reader.one_of("path_specifier", "prefix", "path", "safe_regex", "path_separated_prefix", "connect_matcher")
    if kind == "connect_matcher":
        reader.child(kind)
        return "connect_matcher", ""
    if kind == "path":
        return "path", reader.value("path")
    if kind == "safe_regex":
        return "safe_regex", decode_regex(reader.child("safe_regex"))
    if kind == "path_separated_prefix":
        value: str = reader.value(kind)
        if not _SEPARATED_PREFIX.fullmatch(value):
            reader.error(f"{value!r} must not end with a slash, nor hold ? or #", kind)
        return "path_separated_prefix", value
    return "prefix", reader.value("prefix")


def _forward(reader: Reader, safe_on: frozenset[str] = frozenset()) -> ForwardAction:
    retry = reader.child("retry_policy")
    timeout = reader.seconds("timeout", 15.0)
    longest = reader.child("max_stream_duration")
    upgrades, ends_connect = read_upgrades(reader)
    return ForwardAction(
        _clusters(reader),
        timeout if longest is None else 0.0,  # Envoy: whoever sets the one does not mean the other
        read_retry_policy(retry, safe_on) if retry else None,
        reader.ascii("prefix_rewrite") or None,
        reader.ascii("host_rewrite_literal") or None,
        upgrades=upgrades,
        ends_connect=ends_connect,
        auto_host_rewrite=reader.wrapped("auto_host_rewrite", False),
        idle_timeout=_optional_seconds(reader, "idle_timeout"),
        max_stream_duration=_optional_seconds(longest, "max_stream_duration") if longest else None,
        grpc_timeout_header_max=_optional_seconds(longest, "grpc_timeout_header_max") if longest else None,
        grpc_timeout_header_offset=longest.seconds("grpc_timeout_header_offset", 0.0) if longest else 0.0,
        hash_policy=read_hash_policies(reader),
        rate_limits=read_rate_limits(reader),
        include_vh_rate_limits=reader.wrapped("include_vh_rate_limits", False),
    )


def _optional_seconds(reader: Reader, name: str) -> float | None:
    return reader.seconds(name, 0.0) if reader.has(name) else None


def _clusters(reader: Reader) -> tuple[WeightedCluster, ...]:
    common = read_lb_metadata(reader, "metadata_match")
    kind = reader.one_of("cluster_specifier", "cluster", "weighted_clusters")
    if kind == "cluster":
        return (WeightedCluster(reader.required("cluster"), 1, common),)
    if kind == "weighted_clusters" and (inner := reader.child("weighted_clusters")):
        found: list[WeightedCluster] = []
        for entry in inner.children("clusters"):
            if not entry.has("weight"):
                entry.error("is required", "weight")
            wanted = tuple(sorted({**dict(common), **dict(read_lb_metadata(entry, "metadata_match"))}.items()))
            found.append(WeightedCluster(entry.required("name"), entry.wrapped("weight", 0), wanted))
        total = sum(cluster.weight for cluster in found)
        if not found:
            inner.error("needs at least one cluster", "clusters")
        elif not 0 < total <= _MAX_WEIGHT:
            inner.error(f"the weights must add up to 1..{_MAX_WEIGHT}, not {total}", "clusters")
        return tuple(found)
    return ()


def _direct_response(reader: Reader) -> DirectResponse:
    status: int = reader.value("status")
    if not 200 <= status < 600:  # the proto's own validation rule
        reader.error(f"must be within 200 and 599, not {status}", "status")
    body = reader.child("body")
    data = decode_data(body)[0] if body else b""
    if len(data) > _MAX_BODY:
        reader.error(f"is {len(data)} bytes long; at most {_MAX_BODY} are allowed", "body")
    return DirectResponse(status, data)
