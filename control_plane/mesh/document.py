"""YAML text → plain values that know their places, within bounds.

Built from the parser's events, not by yaml.load: size, depth, aliases and the number of nodes (with every
alias counted as what it stands for) are checked as the events arrive: bombs are refused before they expand.
Scalars are read by YAML 1.2's core schema (`on`, `no` and dates are strings), without tags and merge keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from control_plane.mesh.errors import ConfigError, Problem

MAX_BYTES = 1024 * 1024  # of one file
MAX_DEPTH = 32
MAX_ALIASES = 100  # in one document
MAX_NODES = 100_000  # in one document, aliases expanded
MAX_DOCUMENTS = 10_000  # in one file

Loc = tuple[str | int, ...]
"""A place within a document: keys and list indexes from the top, as in pydantic's errors."""
Position = tuple[int, int]
"""Line and column, both from 1."""

# libyaml where PyYAML has it: ten times as fast. Both parse by a state machine; neither recurses on depth.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?")


@dataclass(slots=True)
class RawDocument:
    """One document of a file: its plain value (mappings are dicts, lists are tuples) and its places."""

    text: str
    position: Position
    value: object = None
    values: Mapping[Loc, Position] = field(default_factory=dict)
    keys: Mapping[Loc, Position] = field(default_factory=dict)

    def place(self, loc: Loc) -> Position:
        """Where the value at `loc` stands, or the nearest thing above it that exists."""
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, self.position)


@dataclass(slots=True)
class _Node:
    position: Position
    value: object = None  # a scalar's value
    pairs: list[tuple[_Node, _Node]] | None = None  # a mapping's
    items: list[_Node] | None = None  # a list's
    size: int = 1  # nodes, aliases expanded
    complete: bool = True


def read(source: str, text: str) -> Iterator[RawDocument]:
    """The documents of one file, without empty ones. Raises ConfigError with what stops it."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError([Problem(source, 1, 1, "the file is larger than 1 MiB", "split it into several files")])
    reader = _Reader(source)
    try:
        roots = list(reader.documents(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = ", ".join(part for part in (error.problem, error.context) if part)
        raise ConfigError([Problem(source, line, column, f"not YAML: {message}")]) from None
    except (yaml.YAMLError, UnicodeError) as error:
        message = " ".join(str(error).split())[:200]
        raise ConfigError([Problem(source, 1, 1, f"not YAML: {message}")]) from None
    lines = text.splitlines(keepends=True)
    for index, (start, root) in enumerate(roots):
        first = 0 if index == 0 else start
        end = roots[index + 1][0] if index + 1 < len(roots) else len(lines)
        if root.pairs is None and root.items is None and root.value is None:
            continue
        document = RawDocument("".join(lines[first:end]), root.position)
        values: dict[Loc, Position] = {}
        keys: dict[Loc, Position] = {}
        document.value = _build(root, (), values, keys, source)
        document.values, document.keys = values, keys
        yield document


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._anchors: dict[str, _Node] = {}
        self._aliases = 0
        self._nodes = 0

    def documents(self, text: str) -> Iterator[tuple[int, _Node]]:
        """Each document's first line (from 0) and its root."""
        stack: list[_Node] = []
        root = _Node((1, 1))
        start = count = 0
        # A key waits here until its value is there; one slot for each open mapping.
        waiting: list[_Node | None] = []
        for event in _events(text):
            position = (event.start_mark.line + 1, event.start_mark.column + 1)
            if isinstance(event, yaml.DocumentStartEvent):
                if event.version or event.tags:
                    raise self._problem(position, "YAML directives (%...) are not supported", "remove the line")
                count += 1
                if count > MAX_DOCUMENTS:
                    raise self._problem(position, f"more than {MAX_DOCUMENTS} documents in one file")
                start, root = position[0] - 1, _Node(position)
                self._anchors, self._aliases, self._nodes = {}, 0, 0
                continue
            if isinstance(event, yaml.DocumentEndEvent):
                yield start, root
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                node = stack.pop()
                waiting.pop()
                node.complete = True
                if stack:
                    stack[-1].size += node.size
                continue
            if not isinstance(event, yaml.NodeEvent):
                continue  # the stream's start and end
            node = self._node(event, position)
            self._count(node.size, position)
            if not stack:
                root = node
            else:
                self._attach(stack[-1], waiting, node, position)
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(node)
                waiting.append(None)
                if len(stack) > MAX_DEPTH:
                    raise self._problem(position, f"nested more than {MAX_DEPTH} deep")
            elif stack:
                stack[-1].size += node.size

    def _node(self, event: Any, position: Position) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise self._problem(position, f"more than {MAX_ALIASES} aliases in one document")
            node = self._anchors.get(str(event.anchor))
            if node is None:
                raise self._problem(position, f"the alias *{event.anchor} has no anchor before it")
            if not node.complete:
                raise self._problem(position, f"the alias *{event.anchor} contains itself")
            return node
        if event.tag is not None and event.tag != "!":
            raise self._problem(position, f"the tag {event.tag} is not supported", "write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] and not event.style  # None from PyYAML, '' from libyaml
            node = _Node(position, _scalar(event.value) if plain else event.value)
        elif isinstance(event, yaml.MappingStartEvent):
            node = _Node(position, pairs=[], complete=False)
        else:
            node = _Node(position, items=[], complete=False)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _attach(self, parent: _Node, waiting: list[_Node | None], node: _Node, position: Position) -> None:
        if parent.pairs is None:
            if parent.items is not None:
                parent.items.append(node)
            return
        key = waiting[-1]
        if key is None:
            if node.pairs is not None or node.items is not None:
                raise self._problem(position, "a key must be text")
            waiting[-1] = node
        else:
            parent.pairs.append((key, node))
            waiting[-1] = None

    def _count(self, size: int, position: Position) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            raise self._problem(position, f"more than {MAX_NODES} values in one document, aliases expanded")

    def _problem(self, position: Position, message: str, hint: str = "") -> ConfigError:
        return ConfigError([Problem(self._source, *position, message, hint)])


def _events(text: str) -> Iterator[Any]:
    # The stubs leave out that every event has its marks and every node event its tag.
    yield from yaml.parse(text, Loader=_Loader)


def _scalar(text: str) -> object:
    """YAML 1.2.2, section 10.3.2: the core schema, without hexadecimal and octal."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _build(node: _Node, loc: Loc, values: dict[Loc, Position], keys: dict[Loc, Position], source: str) -> object:
    """The plain value; recursion is bounded by MAX_DEPTH for text, and by MAX_NODES through aliases."""
    values[loc] = node.position
    if len(loc) > MAX_DEPTH:
        raise ConfigError([Problem(source, *node.position, f"nested more than {MAX_DEPTH} deep")])
    if node.items is not None:
        return tuple(_build(item, (*loc, i), values, keys, source) for i, item in enumerate(node.items))
    if node.pairs is None:
        return node.value
    built: dict[str, object] = {}
    problems = []
    for key, value in node.pairs:
        name = key.value
        if not isinstance(name, str):
            message = f"a key must be text, not {'null' if name is None else name}"
            problems.append(Problem(source, *key.position, message, "put it in quotes"))
        elif name in built:
            line = keys[(*loc, name)][0]
            problems.append(Problem(source, *key.position, f"duplicate key {name[:80]!r}", f"first on line {line}"))
        else:
            keys[(*loc, name)] = key.position
            built[name] = _build(value, (*loc, name), values, keys, source)
    if problems:
        raise ConfigError(problems)
    return built
