"""A bootstrap's text becomes a protobuf message: YAML or JSON → plain values → protobuf's own json_format.

json_format says little about where an error is, so the plain values are first compared with the message's
descriptor: every name that is not a field and every value of the wrong kind is reported with its full path.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Callable, Hashable
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from proxy.agent.decode import types
from proxy.agent.decode.reader import Context, DecodeError, join

MAX_DEPTH = 90
"""Levels of nesting; protobuf's own limit is 100."""

MAX_VALUES = 2_000_000
"""Values in a file, with every YAML alias written out; ten nested aliases can stand for billions."""


def load(text: str) -> dict[str, Any]:
    """YAML or JSON as plain values; a mapping, without duplicate keys. Errors: DecodeError."""
    value: Any = None
    try:
        try:
            value = json.loads(text, object_pairs_hook=_unique) if text.lstrip()[:1] == "{" else _load_yaml(text)
        except json.JSONDecodeError:
            value = _load_yaml(text)  # a YAML flow mapping begins like JSON
        if _size(value, {}) > MAX_VALUES:
            raise DecodeError("", f"holds more than {MAX_VALUES} values")
    except RecursionError:
        raise DecodeError("", "is nested too deeply") from None
    if not isinstance(value, dict):
        raise DecodeError("", "is not an Envoy bootstrap: expected a mapping (node, admin, static_resources)")
    return value


def _size(value: Any, seen: dict[int, int]) -> int:
    """How many values there are, shared ones counted wherever they stand (but walked through once)."""
    if not isinstance(value, dict | list):
        return 1
    found = seen.get(id(value))
    if found is None:
        found = 1 + sum(_size(v, seen) for v in (value.values() if isinstance(value, dict) else value))
        seen[id(value)] = found
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DecodeError("", f"duplicate key {key!r}")
        found[key] = value
    return found


def _load_yaml(text: str) -> Any:
    import yaml  # 3 MB that a sidecar in the mesh never needs

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]  # the base is chosen at run time
        """The safe loader, without duplicate keys, dates and base-60 numbers (YAML 1.2, as Envoy's)."""

        depth = 0

        def descend_resolver(self, _node: Any, _index: Any) -> None:
            # Called for each level that the parser goes down; libyaml's would not stop before its stack ends.
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise RecursionError

        def ascend_resolver(self) -> None:
            self.depth -= 1

    def mapping(loader: Any, node: Any) -> dict[Hashable, Any]:
        loader.flatten_mapping(node)  # the merge key (<<)
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no string", key_node.start_mark)
            if key in found:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            found[key] = loader.construct_object(value_node, deep=True)
        return found

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in entries if not tag.endswith((":timestamp", ":int", ":float"))]
        for first, entries in base.yaml_implicit_resolvers.items()
    }
    digits = list("-+.0123456789")
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), digits)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]*(?:\.[0-9]+|[0-9]\.)(?:[eE][-+]?[0-9]+)?$"), digits
    )
    try:
        return yaml.load(text, Loader)  # noqa: S506  # it is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise DecodeError("", f"{where}{what or 'is not YAML'}") from None
    except yaml.YAMLError as error:
        raise DecodeError("", f"is not YAML: {' '.join(str(error).split())}") from None


def parse(values: dict[str, Any], name: str, context: Context) -> Message:
    """The message of a known name from plain values. Errors: DecodeError, all problems of shape at once.

    An Any of a type that is not known is kept as types.UNKNOWN_TYPE, for its decoder to report.
    """
    message = types.message_class(name)()
    shaped = _message(values, message.DESCRIPTOR, "", context, 0)
    context.check()
    try:
        json_format.ParseDict(shaped, message)
    except RecursionError:
        raise DecodeError("", "is nested too deeply") from None
    except (json_format.ParseError, TypeError, ValueError) as error:
        # What the walk does not see, such as two fields of one oneof; json_format's message ends with a path.
        text = " ".join(str(error).replace("\n", " ").split()).rstrip(". ")
        text = re.sub(r"^(?:Failed to parse \w+ field: )+", "", text)
        found = re.search(r'^(.*?) at "?[A-Z]\w*\.([^ "]+)"?$', text)
        raise DecodeError(*((found[2], found[1]) if found else ("", text))) from None
    return message


def _message(value: Any, descriptor: Any, path: str, context: Context, depth: int) -> Any:
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special(value, path, context, depth)
    if depth > MAX_DEPTH:
        context.error(path, "is nested too deeply")
        return {}
    if not isinstance(value, dict):
        context.error(path, f"expected a mapping, got {_kind(value)}")
        return {}
    fields = descriptor.fields_by_name
    camel = descriptor.fields_by_camelcase_name
    found: dict[str, Any] = {}
    for key, item in value.items():
        field = fields.get(key) or camel.get(key)
        if field is None:
            near = difflib.get_close_matches(key, list(fields), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            context.error(join(path, key), f"is not a field of {descriptor.full_name}{hint}")
        elif field.name in found:
            context.error(join(path, field.name), "is given twice")
        elif item is not None:
            found[field.name] = _field(item, field, join(path, field.name), context, depth + 1)
    return found


def _field(value: Any, field: FieldDescriptor, path: str, context: Context, depth: int) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if not isinstance(value, dict):
            context.error(path, f"expected a mapping, got {_kind(value)}")
            return {}
        inner = field.message_type.fields_by_name["value"]
        return {k: _single(v, inner, f'{path}["{k}"]', context, depth) for k, v in value.items()}
    if field.is_repeated:
        if not isinstance(value, list):
            context.error(path, f"expected a list, got {_kind(value)}")
            return []
        return [_single(v, field, f"{path}[{i}]", context, depth) for i, v in enumerate(value)]
    return _single(value, field, path, context, depth)


_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _single(value: Any, field: FieldDescriptor, path: str, context: Context, depth: int) -> Any:
    if field.message_type is not None:
        return _message(value, field.message_type, path, context, depth)
    problem: str | None = None
    if field.cpp_type in _INTEGERS:
        problem = _integer(value, *_INTEGERS[field.cpp_type])
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        problem = None if isinstance(value, bool) else f"expected true or false, got {_kind(value)}"
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        problem = None if isinstance(value, str) else f"expected a string, got {_kind(value)} (quote it)"
    elif field.enum_type is not None and not _is_enum(value, field.enum_type):
        problem = f"expected one of {', '.join(field.enum_type.values_by_name)}, got {_kind(value)}"
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        problem = _number(value)
    if problem is None and field.type == FieldDescriptor.TYPE_BYTES:
        problem = _base64(value)
    if problem is not None:
        context.error(path, problem)
    return value


def _is_enum(value: Any, enum: Any) -> bool:
    if isinstance(value, str):
        return value in enum.values_by_name
    return isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number


def _base64(value: str) -> str | None:
    try:
        base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
    except ValueError:
        return "expected base64"
    return None


_DECIMAL = re.compile(r"-?[0-9]{1,20}", re.ASCII)


def _integer(value: Any, low: int, high: int) -> str | None:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)  # protobuf's JSON form of a 64-bit number; Envoy takes it for any
    if isinstance(value, bool) or not isinstance(value, int):
        return f"expected a whole number, got {_kind(value)}"
    return None if low <= value <= high else f"must be within {low} and {high}, not {value}"


def _number(value: Any) -> str | None:
    return (
        None
        if isinstance(value, int | float) and not isinstance(value, bool)
        else f"expected a number, got {_kind(value)}"
    )


def _kind(value: Any) -> str:
    """What was given, for a message; a long string is not shown, for it may be a key in the wrong place."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > 20:
        return "a string"
    return "nothing" if value is None else repr(value)


# ---- messages whose JSON form is not a mapping of their fields --------------------------------------------


def _any(value: Any, path: str, context: Context, depth: int) -> Any:
    url = value.get("@type") if isinstance(value, dict) else None
    if not isinstance(url, str) or not url:
        context.error(path, 'expected a mapping with "@type"')
        return {}
    name = url.rpartition("/")[2]
    if not types.known(name):
        return {"@type": types.UNKNOWN_TYPE, "value": url}
    inner = {key: item for key, item in value.items() if key != "@type"}
    shaped = _message(inner, types.message_class(name).DESCRIPTOR, path, context, depth + 1)
    return {"@type": types.PREFIX + name, **shaped}


_DURATION = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,9})?s")


def _duration(value: Any, path: str, context: Context, _depth: int) -> Any:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        context.error(path, f"expected a duration in seconds such as 1.5s, got {_kind(value)}")
        return "0s"
    return value


def _wrapper(check: Callable[[Any], str | None]) -> Callable[[Any, str, Context, int], Any]:
    def walk(value: Any, path: str, context: Context, _depth: int) -> Any:
        problem = check(value)
        if problem is not None:
            context.error(path, problem)
        return value

    return walk


def _free(value: Any, _path: str, _context: Context, _depth: int) -> Any:
    return value


def _struct(value: Any, path: str, context: Context, _depth: int) -> Any:
    if not isinstance(value, dict):
        context.error(path, f"expected a mapping, got {_kind(value)}")
        return {}
    return value


_SPECIAL: dict[str, Callable[[Any, str, Context, int], Any]] = {
    "google.protobuf.Any": _any,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _free,
    "google.protobuf.ListValue": _free,
    "google.protobuf.Timestamp": _free,
    "google.protobuf.FieldMask": _free,
    "google.protobuf.BoolValue": _wrapper(
        lambda v: None if isinstance(v, bool) else f"expected true or false, got {_kind(v)}"
    ),
    "google.protobuf.StringValue": _wrapper(
        lambda v: None if isinstance(v, str) else f"expected a string, got {_kind(v)} (quote it)"
    ),
    "google.protobuf.UInt32Value": _wrapper(lambda v: _integer(v, 0, 2**32 - 1)),
    "google.protobuf.UInt64Value": _wrapper(lambda v: _integer(v, 0, 2**64 - 1)),
    "google.protobuf.Int32Value": _wrapper(lambda v: _integer(v, -(2**31), 2**31 - 1)),
    "google.protobuf.Int64Value": _wrapper(lambda v: _integer(v, -(2**63), 2**63 - 1)),
    "google.protobuf.DoubleValue": _wrapper(_number),
    "google.protobuf.FloatValue": _wrapper(_number),
    "google.protobuf.BytesValue": _free,
}
