"""Documents in, checked services out; and the checks that need the whole mesh."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from control_plane.mesh.document import Loc, Position, RawDocument, read
from control_plane.mesh.errors import ConfigError, Problem
from control_plane.mesh.schema import Service

# pydantic's error types whose own words would not help someone who writes YAML.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


@dataclass(frozen=True, slots=True)
class ServiceDocument:
    """One service of the mesh, and where it was written. Equal when they say the same, wherever that was."""

    service: Service
    source: str = field(compare=False)
    yaml: str = field(compare=False, repr=False)
    """The document's text as written, comments included; parse() of it gives the same service."""
    positions: Mapping[Loc, Position] = field(compare=False, repr=False)
    """The place of every value in the source, by its path: ("routes", 0, "backendRefs", 1, "name")."""

    @property
    def name(self) -> str:
        return self.service.name

    def problem(self, loc: Loc, message: str, hint: str = "") -> Problem:
        """A problem at the value at `loc`."""
        while loc not in self.positions:
            loc = loc[:-1]
        return Problem(self.source, *self.positions[loc], message, hint)


def parse(documents: Iterable[tuple[str, str]]) -> list[ServiceDocument]:
    """Read (source, YAML text) pairs; a text may hold several documents. In order of appearance.

    Raises ConfigError with every problem found. References to other services are not followed: see validate.
    """
    services: list[ServiceDocument] = []
    problems: list[Problem] = []
    for source, text in documents:
        try:
            raw = list(read(source, text))
        except ConfigError as error:
            problems += error.problems
            continue
        if not raw:
            problems.append(Problem(source, 1, 1, "the file is empty", "write a document with `kind: Service`"))
        for document in raw:
            try:
                service = _service(source, document)
            except ConfigError as error:
                problems += error.problems
            else:
                services.append(service)
                problems += _tcp(service)
    problems += _duplicates(services)
    if problems:
        raise ConfigError(problems)
    return services


def validate(services: Sequence[ServiceDocument]) -> None:
    """Check the whole mesh: every backendRef names a service and a version that exist, tcp only from tcp, and no two
    services have the same localPort. Raises ConfigError."""
    problems = _duplicates(services) + _same_ports(services)
    by_name = {document.name: document.service for document in services}
    for document in services:
        for i, route in enumerate(document.service.routes):
            for j, ref in enumerate(route.backend_refs):
                loc: Loc = ("routes", i, "backendRefs", j)
                target = by_name.get(ref.name)
                if target is None:
                    message = f"the service {ref.name!r} does not exist"
                    problems.append(document.problem((*loc, "name"), message, _did_you_mean(ref.name, by_name)))
                elif (target.protocol == "tcp") != (document.service.protocol == "tcp"):
                    message = f"the service {ref.name!r} is {target.protocol}, this one {document.service.protocol}"
                    problems.append(document.problem((*loc, "name"), message))
                elif ref.version is not None and ref.version not in target.versions:
                    message = f"the service {ref.name!r} has no version {ref.version!r}"
                    hint = f"it has {', '.join(list(target.versions)[:10]) or 'none'}"
                    problems.append(document.problem((*loc, "version"), message, hint))
    if problems:
        raise ConfigError(problems)


def _duplicates(services: Sequence[ServiceDocument]) -> list[Problem]:
    first: dict[str, ServiceDocument] = {}
    problems = []
    for document in services:
        other = first.setdefault(document.name, document)
        if other is not document:
            where = f"{other.source}:{other.positions[('name',)][0]}"
            message = f"the service {document.name!r} is there twice"
            problems.append(document.problem(("name",), message, f"first at {where}"))
    return problems


def _same_ports(services: Sequence[ServiceDocument]) -> list[Problem]:
    first: dict[int, ServiceDocument] = {}
    problems = []
    for document in services:
        port = document.service.local_port
        if port is None:
            continue
        other = first.setdefault(port, document)
        if other is not document and other.name != document.name:
            where = f"{other.source}:{other.positions[('localPort',)][0]}"
            message = f"localPort {port} is the service {other.name!r}'s, too"
            problems.append(document.problem(("localPort",), message, f"at {where}"))
    return problems


def _tcp(document: ServiceDocument) -> list[Problem]:
    """What only an HTTP service can have, and what a TCP service cannot do without."""
    service, problems = document.service, []
    if service.protocol != "tcp":
        return []
    if service.local_port is None:
        message = "a tcp service needs a localPort: the port on which the other sidecars offer it"
        problems.append(document.problem(("protocol",), message, "write `localPort: 15432`, or any free port"))
    for i, route in enumerate(service.routes):
        if i > 0:
            problems.append(document.problem(("routes", i), "a tcp service has at most one route"))
        if route.matches:
            message = "a tcp service has nothing to match on"
            problems.append(document.problem(("routes", i, "matches"), message, "leave `matches` out"))
        if route.timeouts.request is not None:
            message = "a tcp service has no requests to time"
            problems.append(document.problem(("routes", i, "timeouts"), message, "leave `timeouts` out"))
    return problems


def _service(source: str, raw: RawDocument) -> ServiceDocument:
    if not isinstance(raw.value, dict):
        message = f"a document must be a mapping, not {_describe(raw.value)}"
        raise ConfigError([Problem(source, *raw.position, message, "begin with `kind: Service`")])
    try:
        service = Service.model_validate(raw.value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise ConfigError(_problem(source, raw, detail) for detail in details) from None
    return ServiceDocument(service, source, raw.text, raw.values)


def _problem(source: str, raw: RawDocument, error: ErrorDetails) -> Problem:
    loc, kind, context = error["loc"], error["type"], error.get("ctx", {})
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
        position = raw.keys.get(loc) or raw.place(loc)
    elif kind == "extra_forbidden":
        position = raw.keys.get(loc) or raw.place(loc)
    else:
        position = raw.place(loc)
    at = f"{_path(loc)}: " if loc else ""
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1])
        hint = _did_you_mean(str(loc[-1]), known) or f"known here: {', '.join(known)}"
        return Problem(source, *position, f"unknown key {str(loc[-1])[:80]!r}", hint)
    if kind == "missing":
        return Problem(source, *position, f"the key {str(loc[-1])!r} is missing", _missing_hint(loc))
    if kind == "literal_error":
        expected = str(context["expected"])
        options = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
        hint = _did_you_mean(str(error["input"]), options)
        return Problem(source, *position, f"{at}must be {expected}, not {_describe(error['input'])}", hint)
    if kind in _EXPECTED:
        hint = "put it in quotes" if kind == "string_type" and isinstance(error["input"], int | float) else ""
        message = f"{at}must be {_EXPECTED[kind]}, not {_describe(error['input'])}"
        return Problem(source, *position, message, hint)
    return Problem(
        source, *position, at + error["msg"].replace("Tuple", "The list").replace("Dictionary", "The mapping")
    )


def _missing_hint(loc: Loc) -> str:
    return "write `kind: Service`" if loc == ("kind",) else ""


def _path(loc: Loc) -> str:
    """routes[0].matches[1].path"""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:80]}"
    return text.removeprefix(".")


def _describe(value: object) -> str:
    """A wrong value in a few words."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value[:80]) if isinstance(value, str) else f"the number {value}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:80], list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def _known_keys(loc: Loc) -> list[str]:
    """The keys of the model at `loc`, found by following the schema's annotations."""
    model: Any = Service
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            by_alias = {info.alias: info.annotation for info in model.model_fields.values()}
            model = by_alias.get(str(part))
        else:  # a list's or a mapping's element
            model = get_args(model)[0 if isinstance(part, int) else -1]
        model = _strip(model)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [str(info.alias) for info in model.model_fields.values()]
    return []


def _strip(annotation: Any) -> Any:
    """Annotated[X, ...] and X | None without what surrounds X."""
    while hasattr(annotation, "__metadata__") or type(None) in get_args(annotation):
        annotation = get_args(annotation)[0]
    return annotation
