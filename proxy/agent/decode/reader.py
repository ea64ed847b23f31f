"""Reading a message so that nothing in it can be overlooked.

A Reader records which fields were taken. `done` then reports every other field that is set, in this message
and in all that were read from it, so a decoder that does not know a field refuses it without a line of code.
Scalars equal to their proto3 default are not visible on the wire and mean the same as absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from proxy.agent.decode import types
from proxy.agent.decode.secrets import Secrets

T = TypeVar("T")

MAX_PROBLEMS = 20
"""More are counted, not listed: the text travels in a NACK."""


class DecodeError(Exception):
    """A configuration that Pillion does not take.

    `path` and `message` are the first problem's; `problems` has all of them (at most MAX_PROBLEMS), `source`
    the file's name when a file was read. str() is one line.
    """

    def __init__(
        self, path: str, message: str, *, source: str = "", problems: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.path = path
        self.message = message
        self.source = source
        self.problems = problems or ((path, message),)
        where = f"{source}: " if source else ""
        super().__init__(where + "; ".join(_sentence(p, m) for p, m in self.problems))


def _sentence(path: str, message: str) -> str:
    if not path:
        return message
    # The root of a resource ('listener "inbound": ') brings its own colon.
    return path + message if path.endswith(": ") else f"{path}: {message}"


def printable(text: str) -> bool:
    """Whether a text has no control characters (RFC 9110, 5.5: CR, LF and NUL never pass in a header)."""
    return not any(ord(character) < 32 or ord(character) == 127 for character in text)


def join(path: str, name: str) -> str:
    """The path of a field below `path`."""
    return f"{path}.{name}" if path and not path.endswith(": ") else path + name


class Context:
    """What one decoding shares: the problems found so far, and where secrets go.

    `unsupported`: a list collects what is not supported as warnings; None makes each an error.
    `secrets`: set for a bootstrap file, whose file names may be read; None for the control plane's resources.
    """

    __slots__ = ("problems", "secrets", "unsupported_list")

    def __init__(self, unsupported: list[str] | None = None, secrets: Secrets | None = None) -> None:
        self.problems: list[tuple[str, str]] = []
        self.unsupported_list = unsupported
        self.secrets = secrets

    def error(self, path: str, message: str) -> None:
        """Report a value that is wrong; decoding goes on."""
        self.problems.append((path, message))

    def unsupported(self, path: str, message: str) -> None:
        """Report something that is right in Envoy and that Pillion does not do."""
        if self.unsupported_list is None:
            self.problems.append((path, message))
        else:
            self.unsupported_list.append(_sentence(path, message))

    def check(self, source: str = "") -> None:
        """Raises DecodeError when there was any problem."""
        if self.problems:
            shown = tuple(self.problems[:MAX_PROBLEMS])
            if len(self.problems) > MAX_PROBLEMS:
                shown += (("", f"and {len(self.problems) - MAX_PROBLEMS} more"),)
            raise DecodeError(*shown[0], source=source, problems=shown)


class Reader:
    """One message on its path. Every method that takes a field marks it as understood."""

    __slots__ = ("_children", "_taken", "context", "message", "path", "strict")

    def __init__(self, message: Message, path: str, context: Context, strict: bool = False) -> None:
        self.message: Any = message
        self.strict = strict  # what is not supported stays an error, here and below, even if it is allowed
        self.path = path
        self.context = context
        self._taken: set[str] = set()
        self._children: list[Reader] = []

    # ---- taking fields -------------------------------------------------------------------------------------

    def value(self, name: str) -> Any:
        """A scalar field, or the raw content of any other."""
        self._taken.add(name)
        return getattr(self.message, name)

    opaque = value
    """As `value`, for a message whose content is by definition not for us (metadata, localities)."""

    def required(self, name: str) -> str:
        """A string that must not be empty."""
        text = self.text(name)
        if not text:
            self.error("is required", name)
        return text

    def text(self, name: str) -> str:
        """A string that may stand in a header or in a line of a log: no control characters."""
        text: str = self.value(name)
        if not printable(text):
            self.error("must not hold control characters", name)
        return text

    def ascii(self, name: str) -> str:
        """A string that is written into a header: printable ASCII."""
        text = self.text(name)
        if not text.isascii():
            self.error("must be ASCII", name)
        return text

    def wrapped(self, name: str, default: T) -> T:
        """The value of a google.protobuf.*Value wrapper, or the default when it is absent."""
        self._taken.add(name)
        if not self.message.HasField(name):
            return default
        found: T = getattr(self.message, name).value
        return found

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A UInt32Value within low..high."""
        found = self.wrapped(name, default)
        if not low <= found <= high:
            self.error(f"must be within {low} and {high}, not {found}", name)
        return found

    def seconds(self, name: str, default: float, *, positive: bool = False) -> float:
        """A Duration as float seconds, not negative (and not zero, if `positive`)."""
        self._taken.add(name)
        if not self.message.HasField(name):
            return default
        duration = getattr(self.message, name)
        found: float = duration.seconds + duration.nanos / 1e9
        if found < 0 or (positive and found == 0):
            self.error(f"must be {'more than 0s' if positive else 'at least 0s'}, not {found:g}s", name)
        return found

    def enum(self, name: str, supported: Mapping[str, T]) -> T:
        """An enum translated by name. Any other value is an error even if unsupported fields are allowed."""
        number: int = self.value(name)
        values = self.message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number
        word = values[number].name if number in values else str(number)
        if word not in supported:
            self.error(f"{word} is not supported, only {', '.join(supported)}", name)
            return next(iter(supported.values()))
        return supported[word]

    def which(self, oneof: str) -> str | None:
        """The name of the field that is set in a oneof; does not take it."""
        found: str | None = self.message.WhichOneof(oneof)
        return found

    def one_of(self, oneof: str, *supported: str) -> str | None:
        """The name of the field that is set in a oneof that the message makes no sense without.

        None when none is set or when it is not supported; both are errors even if unsupported fields are allowed,
        because nothing could stand in their place.
        """
        found = self.which(oneof)
        if found is None:
            self.error(f"needs one of {', '.join(supported)}" if len(supported) > 1 else f"needs {supported[0]}")
        elif found not in supported:
            self._taken.add(found)
            self.error("this field is not supported", found)
            return None
        return found

    def has(self, name: str) -> bool:
        """Whether a message field is set; does not take it."""
        return bool(self.message.HasField(name))

    def child(self, name: str) -> Reader | None:
        """The Reader of a message field, or None when it is not set."""
        self._taken.add(name)
        if not self.message.HasField(name):
            return None
        return self._adopt(getattr(self.message, name), join(self.path, name))

    def children(self, name: str) -> list[Reader]:
        """The Readers of a repeated message field."""
        self._taken.add(name)
        path = join(self.path, name)
        return [self._adopt(item, f"{path}[{i}]") for i, item in enumerate(getattr(self.message, name))]

    def any(
        self, name: str, what: str, supported: tuple[str, ...], *, needed: bool = False
    ) -> tuple[str, Reader] | None:
        """Unpack an Any field that holds one of the supported messages: (message name, its Reader).

        None when it is absent, corrupt, or of another type, which is reported on this message's own path with
        `what` it is ("filter", "transport socket"). `needed`: another type is an error even if unsupported fields
        are allowed, because nothing can be done without it.
        """
        if not self.has(name):
            self._taken.add(name)
            self.error(f"{what} needs a typed_config")
            return None
        report = self.context.error if needed or self.strict else self.context.unsupported
        packed = self.value(name)
        if types.type_name(packed) not in supported:
            report(self.path, f"{what} {shown_type(packed)} is not supported")
            return None
        return self.unpack(packed, join(self.path, name))

    def unpack(self, packed: AnyMessage, path: str) -> tuple[str, Reader] | None:
        """As `any`, for an Any of a supported type that is already at hand."""
        name = types.type_name(packed)
        message = types.unpack(packed)
        if message is None:
            self.context.error(path, f"the bytes are not a {name}")
            return None
        return name, self._adopt(message, path)

    def _adopt(self, message: Message, path: str) -> Reader:
        reader = Reader(message, path, self.context, self.strict)
        self._children.append(reader)
        return reader

    # ---- reporting -----------------------------------------------------------------------------------------

    def error(self, message: str, name: str = "") -> None:
        """A wrong value, of this message or of its field `name`."""
        self.context.error(join(self.path, name) if name else self.path, message)

    def unsupported(self, message: str, name: str = "") -> None:
        """An unsupported value, of this message or of its field `name`."""
        report = self.context.error if self.strict else self.context.unsupported
        report(join(self.path, name) if name else self.path, message)

    def done(self) -> None:
        """Report every field that is set and was not taken, here and below."""
        for field, _ in self.message.ListFields():
            if field.name not in self._taken:
                self.unsupported("this field is not supported", field.name)
        unknown = UnknownFieldSet(self.message)
        for i in range(len(unknown)):
            self.unsupported(f"field number {unknown[i].field_number} is not known to this version")
        for reader in self._children:
            reader.done()


def shown_type(packed: AnyMessage) -> str:
    """The type URL, for a human; shape.parse keeps that of a type it does not know in a StringValue."""
    if packed.type_url == types.UNKNOWN_TYPE:
        from google.protobuf.wrappers_pb2 import StringValue

        return StringValue.FromString(packed.value).value
    return packed.type_url or "without @type"


def decode(
    message: Message,
    expected: str,
    kind: str,
    name_field: str,
    read: Callable[[Reader], T],
    unsupported: list[str] | None,
) -> T:
    """Decode one xDS resource: `message` is the resource or the Any that holds it.

    Errors: DecodeError, whose path begins with the resource, as in `listener "inbound": filter_chains[0]`.
    """
    context = Context(unsupported)
    if isinstance(message, AnyMessage):
        found = types.unpack(message) if types.type_name(message) == expected else None
        if found is None:
            raise DecodeError("", f"expected a {expected}, got {message.type_url or 'an empty Any'}")
        message = found
    elif message.DESCRIPTOR.full_name != expected:
        raise DecodeError("", f"expected a {expected}, got {message.DESCRIPTOR.full_name}")
    name = getattr(message, name_field)
    shown = json.dumps(name[:256], ensure_ascii=False)  # one line, whatever the name holds
    reader = Reader(message, f"{kind} {shown}: ", context)
    result = read(reader)
    reader.done()
    context.check()
    return result
