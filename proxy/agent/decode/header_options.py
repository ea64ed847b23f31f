"""What is added to and removed from headers (envoy.config.core.v3.HeaderValueOption, and the fields that hold it)."""

from __future__ import annotations

import re

from proxy.agent.decode.reader import Reader
from proxy.config.route import AppendAction, HeaderMutations, HeaderValueOption
from proxy.telemetry import access_log

_ACTIONS: dict[str, AppendAction] = {
    "APPEND_IF_EXISTS_OR_ADD": "APPEND_IF_EXISTS_OR_ADD",
    "ADD_IF_ABSENT": "ADD_IF_ABSENT",
    "OVERWRITE_IF_EXISTS_OR_ADD": "OVERWRITE_IF_EXISTS_OR_ADD",
    "OVERWRITE_IF_EXISTS": "OVERWRITE_IF_EXISTS",
}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 §5.1

OURS = frozenset((
    "host", "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "traceparent", "x-forwarded-client-cert", "x-pillion-unsent",
))  # fmt: skip
"""Fields that frame the message, or that say what this hop itself knows. Envoy, too, refuses Host here."""


def read_header_mutations(reader: Reader) -> HeaderMutations:
    """The four fields that Route, VirtualHost and RouteConfiguration have alike."""
    return HeaderMutations(
        read_header_options(reader, "request_headers_to_add"),
        _names(reader, "request_headers_to_remove"),
        read_header_options(reader, "response_headers_to_add"),
        _names(reader, "response_headers_to_remove"),
    )


def read_header_options(reader: Reader, name: str) -> tuple[HeaderValueOption, ...]:
    """A repeated HeaderValueOption."""
    return tuple(_option(inner) for inner in reader.children(name))


def read_plain_headers(reader: Reader, field: str) -> tuple[tuple[str, str], ...]:
    """Headers of a request that the agent itself makes: nothing of a client's request can be put into them."""
    found = []
    for option in reader.children(field):
        inner = option.child("header")
        if inner is None:
            option.error("is required", "header")
            continue
        name, value = inner.required("key").lower(), inner.ascii("value")
        if name:
            _check(inner, name, "key")
        if "%" in value:
            inner.unsupported("operators are not supported here", "value")
        found.append((name, value))
    return tuple(found)


def _option(reader: Reader) -> HeaderValueOption:
    action = reader.enum("append_action", _ACTIONS)
    if reader.has("append"):  # deprecated, and excludes the other
        if action != "APPEND_IF_EXISTS_OR_ADD":
            reader.error("cannot be set together with append_action", "append")
        elif not reader.wrapped("append", True):
            action = "OVERWRITE_IF_EXISTS_OR_ADD"
        reader.opaque("append")
    keep_empty: bool = reader.value("keep_empty_value")
    inner = reader.child("header")
    if inner is None:
        reader.error("is required", "header")
        return HeaderValueOption("", "")
    name = inner.required("key").lower()
    if name:
        _check(inner, name, "key")
    value = inner.ascii("value")
    problem = access_log.check(value)
    if problem:
        inner.error(problem, "value")
    return HeaderValueOption(name, value, action, keep_empty)


def _names(reader: Reader, field: str) -> tuple[str, ...]:
    names = tuple(name.lower() for name in reader.value(field))
    for index, name in enumerate(names):
        _check(reader, name, f"{field}[{index}]")
    return names


def _check(reader: Reader, name: str, where: str) -> None:
    if name in OURS or name.startswith(":"):
        reader.error(f"{name} cannot be changed here", where)
    elif not _NAME.fullmatch(name):
        reader.error(f"{name!r} is not the name of a header", where)
