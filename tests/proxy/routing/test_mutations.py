"""Header mutations: order of the levels, the four actions, values with operators."""

from __future__ import annotations

import pytest

from proxy.config.route import (
    DirectResponse,
    HeaderMutations,
    HeaderValueOption,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from proxy.http.heads import RequestHead
from proxy.routing.mutations import HeaderEdits, compile_edits
from proxy.routing.table import Defaults, RouteTable

Headers = list[tuple[bytes, bytes]]


class Shout:
    """A stand-in for a compiled format: the record's text in place of %X%."""

    def __init__(self, form: str) -> None:
        self.form = form

    def write(self, record: str) -> str:
        return self.form.replace("%X%", record)


def edited(headers: Headers, *options: HeaderValueOption, remove: tuple[str, ...] = (), record: str = "") -> Headers:
    edits = compile_edits([(options, remove)], Shout)
    assert edits is not None
    edits.apply(headers, record)
    return headers


def test_nothing_said_is_nothing_done() -> None:
    assert compile_edits([((), ()), ((), ())], Shout) is None


@pytest.mark.parametrize(
    ("action", "absent", "present"),
    [
        ("APPEND_IF_EXISTS_OR_ADD", [b"new"], [b"1", b"2", b"new"]),
        ("ADD_IF_ABSENT", [b"new"], [b"1", b"2"]),
        ("OVERWRITE_IF_EXISTS_OR_ADD", [b"new"], [b"new"]),
        ("OVERWRITE_IF_EXISTS", [], [b"new"]),
    ],
)
def test_actions(action: str, absent: list[bytes], present: list[bytes]) -> None:
    option = HeaderValueOption("x", "new", action)  # type: ignore[arg-type]
    assert edited([(b"y", b"0")], option) == [(b"y", b"0"), *((b"x", value) for value in absent)]
    before = [(b"x", b"1"), (b"y", b"0"), (b"x", b"2")]
    after = edited(before, option)
    assert [value for name, value in after if name == b"x"] == present
    assert (b"y", b"0") in after


def test_removal_comes_before_addition() -> None:
    assert edited([(b"x", b"1"), (b"x", b"2")], HeaderValueOption("x", "3"), remove=("x",)) == [(b"x", b"3")]


def test_values_with_operators() -> None:
    assert edited([], HeaderValueOption("x", "a %X%"), record="b") == [(b"x", b"a b")]
    assert edited([], HeaderValueOption("x", "%X%"), record="") == []
    assert edited([], HeaderValueOption("x", "%X%", keep_empty_value=True), record="") == [(b"x", b"")]
    # What comes from outside cannot end the line, whatever it is.
    assert edited([], HeaderValueOption("x", "%X%"), record="a\r\nb: c\x00é☃") == [(b"x", b"a  b: c \xe9?")]


def names_of(edits: HeaderEdits | None) -> frozenset[bytes]:
    assert edits is not None
    return edits.names


@pytest.mark.parametrize(("most_specific", "last"), [(False, b"configuration"), (True, b"route")])
def test_levels(most_specific: bool, last: bytes) -> None:
    def level(name: str) -> HeaderMutations:
        option = HeaderValueOption("x", name, "OVERWRITE_IF_EXISTS_OR_ADD")
        return HeaderMutations((option,), (), (HeaderValueOption("y", name),), (f"gone-{name}",))

    one = Route(RouteMatch("prefix", "/"), DirectResponse(200), headers=level("route"))
    host = VirtualHost("all", ("*",), (one,), level("host"))
    table = RouteTable(RouteConfiguration("r", (host,), False, level("configuration"), most_specific), str, Defaults())
    route = table.match(RequestHead(b"GET", b"/", b"a", []))
    assert route is not None
    assert route.request_edits is not None
    assert route.response_edits is not None
    headers: Headers = []
    route.request_edits.apply(headers, None)
    assert headers == [(b"x", last)]
    headers = [(b"gone-host", b""), (b"stays", b"")]
    route.response_edits.apply(headers, None)
    order = [b"route", b"host", b"configuration"]
    assert headers == [(b"stays", b""), *((b"y", name) for name in (order[::-1] if most_specific else order))]
    assert names_of(route.response_edits) == {b"y", b"gone-route", b"gone-host", b"gone-configuration"}
