"""Matchers over a request head, compiled to plain predicates (envoy.config.route.v3.RouteMatch)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl

from proxy.config.model import StringMatcher
from proxy.config.route import HeaderMatcher, QueryParameterMatcher, RouteMatch


class Request(Protocol):
    """What routing looks at: http.heads.RequestHead, whatever the protocol it came by."""

    method: bytes
    target: bytes
    authority: bytes

    @property
    def path(self) -> bytes: ...

    def find(self, name: bytes) -> bytes | None: ...


Predicate = Callable[[Request], bool]

_GRPC_OR_WEB = frozenset((b"application/grpc", b"application/grpc-web", b"application/grpc-web-text"))


def regex(pattern: str) -> Callable[[bytes], Any]:
    """A match of the whole value, by RE2 as in Envoy: in time linear in the value, whatever the pattern. Raises
    ValueError. Imported here because few configurations have one."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern.encode(), options)
    except re2.error as error:  # whose text comes as bytes
        raise ValueError(error.args[0].decode("utf-8", "replace")) from None
    fullmatch: Callable[[bytes], Any] = compiled.fullmatch
    return fullmatch


def string(matcher: StringMatcher) -> Callable[[bytes], bool]:
    """A predicate over a value (envoy.type.matcher.v3.StringMatcher). A regex matches the whole value."""
    if matcher.kind == "safe_regex":
        fullmatch = regex(matcher.value)
        return lambda value: fullmatch(value) is not None
    wanted = matcher.value.encode()
    if matcher.ignore_case:
        exact = string(StringMatcher(matcher.kind, matcher.value.lower()))
        return lambda value: exact(value.lower())
    if matcher.kind == "exact":
        return wanted.__eq__
    if matcher.kind == "prefix":
        return lambda value: value.startswith(wanted)
    if matcher.kind == "suffix":
        return lambda value: value.endswith(wanted)
    return lambda value: wanted in value


def header(matcher: HeaderMatcher) -> Predicate:
    """envoy.config.route.v3.HeaderMatcher; several fields of a name are one value, joined with commas."""
    name = matcher.name.lower().encode()
    invert = matcher.invert
    if matcher.matcher is None:
        return lambda head: (head.find(name) is not None) is not invert
    matches = string(matcher.matcher)
    absent = b"" if matcher.treat_missing_as_empty else None

    def predicate(head: Request) -> bool:
        value = head.find(name)
        if value is None:
            value = absent
        # A missing header fails the match even when inverted is asked for only the value (Envoy's rule).
        return False if value is None else matches(value) is not invert

    return predicate


def query(matcher: QueryParameterMatcher) -> Predicate:
    """envoy.config.route.v3.QueryParameterMatcher; the first parameter of the name counts."""
    name = matcher.name
    matches = None if matcher.matcher is None else string(matcher.matcher)

    def predicate(head: Request) -> bool:
        pairs = parse_qsl(head.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
        for key, value in pairs:
            if key == name:
                return matches is None or matches(value.encode("latin-1"))
        return False

    return predicate


def path(match: RouteMatch) -> Predicate | None:
    """The path's predicate; None when it holds for every request."""
    if match.kind == "connect_matcher":  # the table gives it nothing but CONNECT
        return None
    if match.kind == "safe_regex":
        fullmatch = regex(match.value)
        return lambda head: fullmatch(head.path) is not None
    value = match.value.encode()
    if match.kind == "prefix" and value in (b"", b"/"):
        return None
    fold = not match.case_sensitive
    if fold:
        value = value.lower()
    if match.kind == "path":
        return lambda head: (head.path.lower() if fold else head.path) == value
    if match.kind == "prefix":
        return lambda head: (head.target.lower() if fold else head.target).startswith(value)
    below = value + b"/"

    def separated(head: Request) -> bool:
        seen = head.path.lower() if fold else head.path
        return seen == value or seen.startswith(below)

    return separated


def grpc(head: Request) -> bool:
    """RouteMatch.grpc: the content-type is gRPC's, perhaps with a message format ("+proto"); as in Envoy with neither
    parameters nor capital letters."""
    kind = head.find(b"content-type")
    return kind is not None and kind.partition(b"+")[0] == b"application/grpc"


def grpc_or_web(head: Request) -> bool:
    """The same on a listener with a gRPC-Web filter, which makes gRPC of two more content types before Envoy routes."""
    kind = head.find(b"content-type")
    return kind is not None and kind.partition(b"+")[0] in _GRPC_OR_WEB


def route(match: RouteMatch, grpc_web: bool = False) -> Predicate | None:
    """All of a RouteMatch; None when it holds for every request. `grpc_web`: the listener has a gRPC-Web filter."""
    parts = [path(match)] if path(match) is not None else []
    if match.grpc:
        parts.append(grpc_or_web if grpc_web else grpc)
    parts += [header(matcher) for matcher in match.headers]
    parts += [query(matcher) for matcher in match.query_parameters]
    predicates = [part for part in parts if part is not None]
    if not predicates:
        return None
    if len(predicates) == 1:
        return predicates[0]
    return lambda head: all(predicate(head) for predicate in predicates)
