"""The schema of one `kind: Service` document, with Gateway API's names and limits (HTTPRoute, v1)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from control_plane.mesh.duration import PATTERN as DURATION_PATTERN
from control_plane.mesh.duration import parse_duration
from control_plane.mesh.regex import refusal

NAME_PATTERN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
RESERVED_NAMES = frozenset({"inbound"})  # the sidecar's cluster for its own app

_NAME = re.compile(NAME_PATTERN)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
_PATH_REFUSED = ("//", "/./", "/../", "%2f", "%2F", "#", "?")  # HTTPPathMatch's own list, and the query


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 63:
        raise PydanticCustomError(
            "name",
            "{value} is not a name: a-z, 0-9 and '-' between letters or digits, at most 63 characters",
            {"value": repr(value[:80])},
        )
    return value


def _service_name(value: str) -> str:
    if value in RESERVED_NAMES:
        raise PydanticCustomError("name", "the name {value} is reserved", {"value": repr(value)})
    return value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise PydanticCustomError("token", "{value} is not a header name (RFC 9110)", {"value": repr(value[:80])})
    return value.lower()


def _text(value: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise PydanticCustomError("text", "control characters are not allowed here", {})
    return value


def _duration(value: object) -> object:
    if not isinstance(value, str):
        raise PydanticCustomError("duration", "must be a duration such as 250ms, 2s or 1m30s", {})
    try:
        return parse_duration(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from None


def _check_regex(match: PathMatch | HeaderMatch | QueryParamMatch) -> None:
    if match.type == "RegularExpression" and (reason := refusal(match.value)):
        raise PydanticCustomError("regex", "{reason}", {"reason": f"the regular expression {reason}"})


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise PydanticCustomError("path", "a path starts with '/'", {})
    for part in _PATH_REFUSED:
        if part in path:
            raise PydanticCustomError("path", "a path cannot contain {part}", {"part": repr(part)})
    if path.endswith(("/.", "/..")):
        raise PydanticCustomError("path", "a path cannot end with '/.' or '/..'", {})


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$", "maxLength": 63})]
ServiceName = Annotated[Name, AfterValidator(_service_name)]
HeaderName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_token)]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_text)]
Label = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(_text)]
Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})]
"""Seconds; written as GEP-2257 text."""


Protocol = Literal["http", "http2", "grpc", "tcp"]


class Model(BaseModel):
    """Frozen, strict (no coercion: 1 is no string), unknown keys are errors, keys in camelCase."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class PathMatch(Model):
    """HTTPPathMatch. PathPrefix matches whole path elements: /foo matches /foo/bar and not /foobar."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[Text, Field(min_length=1, max_length=1024)] = "/"

    def model_post_init(self, _: object, /) -> None:
        _check_regex(self)
        if self.type != "RegularExpression":
            _check_path(self.value)


class HeaderMatch(Model):
    """HTTPHeaderMatch. `name` is in lower case."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[Text, Field(min_length=1)]

    def model_post_init(self, _: object, /) -> None:
        _check_regex(self)


class QueryParamMatch(Model):
    """HTTPQueryParamMatch."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: Annotated[Text, Field(min_length=1, max_length=256)]
    value: Annotated[Text, Field(min_length=1, max_length=1024)]

    def model_post_init(self, _: object, /) -> None:
        _check_regex(self)


class RouteMatch(Model):
    """HTTPRouteMatch: everything given must match."""

    path: PathMatch = PathMatch()
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    query_params: Annotated[tuple[QueryParamMatch, ...], Field(max_length=16)] = ()
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] | None = None


class BackendRef(Model):
    """HTTPBackendRef; `version` narrows it to the instances of one version of that service."""

    name: ServiceName
    version: Name | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class Timeouts(Model):
    """HTTPRouteTimeouts. `request`: the whole request, tries included, in seconds; 0 turns it off. Of a grpc service: a
    bound on the caller's own deadline, and the deadline of calls without one; by default there is no such bound."""

    request: Duration | None = None


def _weights(refs: tuple[BackendRef, ...]) -> tuple[BackendRef, ...]:
    if not refs:  # here, since a min_length would also complain about a list whose items are wrong
        raise PydanticCustomError("backend_refs", "name at least one service", {})
    if not any(ref.weight for ref in refs):
        raise PydanticCustomError("weights", "the weights sum to zero, so no request could go anywhere", {})
    return refs


class Route(Model):
    """HTTPRouteRule: one of `matches` must match; without any, everything does."""

    name: Name | None = None
    matches: Annotated[tuple[RouteMatch, ...], Field(max_length=64)] = ()
    backend_refs: Annotated[tuple[BackendRef, ...], Field(max_length=16), AfterValidator(_weights)]
    timeouts: Timeouts = Timeouts()


class Version(Model):
    """A subset of a service's instances: those that carry all of these labels."""

    labels: Annotated[dict[Label, Label], Field(min_length=1, max_length=16)]


def _route_names(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    twice = [name for name, count in Counter(r.name for r in routes if r.name).items() if count > 1]
    if twice:
        raise PydanticCustomError("route_names", "two routes have the name {name}", {"name": repr(twice[0])})
    return routes


class Service(Model):
    """A service of the mesh. Without routes, everything goes to its own instances.

    `protocol`: what its app speaks; callers may speak HTTP/1.1 or HTTP/2, whichever it is. http: HTTP/1.1. http2:
    HTTP/2 without TLS, from the first byte. grpc: the same, and no call is ended but by its own deadline. tcp: bytes,
    whatever they mean. `local_port`: where every other sidecar offers the service to its own app, on 127.0.0.1; a tcp
    service needs one, since nothing else in a connection says where it is to go."""

    kind: Literal["Service"]
    name: ServiceName
    protocol: Protocol = "http"
    local_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    versions: Annotated[dict[Name, Version], Field(max_length=64)] = {}
    routes: Annotated[tuple[Route, ...], Field(max_length=256), AfterValidator(_route_names)] = ()
