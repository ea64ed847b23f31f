"""What of a request decides where it goes (envoy.config.route.v3.RouteAction.HashPolicy)."""

from __future__ import annotations

import re

from proxy.agent.decode.matchers import decode_header_name
from proxy.agent.decode.reader import Reader
from proxy.config.route import HashPolicy

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 6265 §4.1.1: cookie-name
_NOTHING = HashPolicy("source_ip")


def read_hash_policies(reader: Reader) -> tuple[HashPolicy, ...]:
    """The hash_policy of a RouteAction."""
    return tuple(_policy(inner) for inner in reader.children("hash_policy"))


def _policy(reader: Reader) -> HashPolicy:
    terminal: bool = reader.value("terminal")
    kind = reader.one_of("policy_specifier", "header", "cookie", "connection_properties", "query_parameter")
    inner = reader.child(kind) if kind is not None else None
    if inner is None:
        return _NOTHING
    if kind == "header":
        return HashPolicy("header", decode_header_name(inner, "header_name"), terminal)
    if kind == "query_parameter":
        return HashPolicy("query_parameter", inner.required("name"), terminal)
    if kind == "cookie":
        return _cookie(inner, terminal)
    if not inner.value("source_ip"):
        inner.error("only source_ip: true means anything", "source_ip")
    return HashPolicy("source_ip", "", terminal)


def _cookie(reader: Reader, terminal: bool) -> HashPolicy:
    name = reader.required("name")
    if name and not _TOKEN.fullmatch(name):
        reader.error(f"{name!r} is not the name of a cookie", "name")
    ttl = reader.seconds("ttl", 0.0) if reader.has("ttl") else None
    path = reader.ascii("path")
    if ";" in path:
        reader.error("must not hold a semicolon", "path")
    attributes: list[tuple[str, str]] = []
    for inner in reader.children("attributes"):
        key, value = inner.required("name"), inner.ascii("value")
        if not _TOKEN.fullmatch(key) or ";" in value:
            inner.error(f"{key}={value} is not an attribute of a cookie")
        attributes.append((key, value))
    if ttl is None and (path or attributes):
        reader.error("path and attributes are of a cookie that is set, which takes a ttl", "ttl")
    return HashPolicy("cookie", name, terminal, ttl, path, tuple(attributes))
