"""Access logs (envoy.config.accesslog.v3.AccessLog): the file, stdout and stderr loggers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from proxy.agent.decode import types
from proxy.agent.decode.matchers import decode_data
from proxy.agent.decode.reader import Reader
from proxy.config.listener import AccessLog

# Envoy: "Default format string" in the access-logging documentation.
DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)

_STREAMS = {types.STDOUT_ACCESS_LOG: "/dev/stdout", types.STDERR_ACCESS_LOG: "/dev/stderr"}


def decode_access_log(reader: Reader) -> AccessLog | None:
    """One logger, or None when it is of a type that is not supported (reported)."""
    reader.opaque("name")
    found = reader.any("typed_config", "access log", (types.FILE_ACCESS_LOG, *_STREAMS))
    if found is None:
        return None
    name, config = found
    path = _STREAMS.get(name) or config.required("path")
    log_format = config.child("log_format")
    if log_format is None:
        return AccessLog(path, text_format=DEFAULT_FORMAT)
    kind = log_format.which("format")
    if kind == "json_format":
        return AccessLog(path, json_format=_json_format(log_format))
    if kind == "text_format_source" and (source := log_format.child("text_format_source")):
        text = decode_data(source)[0].decode(errors="replace")
        _check(source, text, "")
        return AccessLog(path, text_format=text)
    text = log_format.required("text_format")
    _check(log_format, text, "text_format")
    return AccessLog(path, text_format=text)


def _json_format(reader: Reader) -> tuple[tuple[str, str], ...]:
    """Keys in sorted order: a protobuf map has none of its own."""
    fields = reader.opaque("json_format").fields
    if not fields:
        reader.error("needs at least one field", "json_format")
    pairs: list[tuple[str, str]] = []
    for key in sorted(fields):
        where = f"json_format.{key}"
        if fields[key].WhichOneof("kind") != "string_value":
            reader.unsupported("only strings are supported", where)
            continue
        _check(reader, fields[key].string_value, where)
        pairs.append((key, fields[key].string_value))
    return tuple(pairs)


def _check(reader: Reader, text: str, where: str) -> None:
    # Imported when needed: the formatter belongs to the worker's side.
    check: Callable[[str], str | None] = import_module("proxy.telemetry.access_log").check
    problem = check(text)
    if problem is not None:
        reader.unsupported(problem, where)
