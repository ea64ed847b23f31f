"""Errors name the exact place and what to write instead; good documents mean what they say."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import mesh
from control_plane.mesh import ConfigError, document

GOOD = """\
# The cart and its two versions.
kind: Service
name: cart            # the Host that apps call
protocol: http
versions: {v1: {labels: {version: v1}}, v2: {labels: {version: v2}}}
routes:
  - name: canary
    matches: [{path: {type: PathPrefix, value: /}, headers: [{name: X-Beta, value: "1"}], method: GET}]
    backendRefs: [{name: cart, version: v1, weight: 95}, {name: cart, version: v2, weight: 5}]
    timeouts: {request: 2s}
"""


def problems(*texts: str, whole_mesh: bool = False) -> list[str]:
    try:
        documents = mesh.parse([(f"{i}.yaml", text) for i, text in enumerate(texts)])
        if whole_mesh:
            mesh.validate(documents)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_document() -> None:
    (found,) = mesh.parse([("mesh.yaml", GOOD)])
    mesh.validate([found])
    assert (found.name, found.source, found.yaml) == ("cart", "mesh.yaml", GOOD)
    (route,) = found.service.routes
    assert route.timeouts.request == 2.0
    assert [(ref.version, ref.weight) for ref in route.backend_refs] == [("v1", 95), ("v2", 5)]
    (match,) = route.matches
    assert (match.path.value, match.headers[0].name, match.method) == ("/", "x-beta", "GET")


def test_several_documents_keep_their_own_text_and_places() -> None:
    text = f"# before\n{GOOD}---\n# payments\nkind: Service\nname: payments\n---\n---\n"
    cart, payments = mesh.parse([("mesh.yaml", text)])
    assert cart.yaml.startswith("# before\n# The cart")
    assert "payments" not in cart.yaml
    assert payments.yaml == "---\n# payments\nkind: Service\nname: payments\n"
    assert payments.positions["name",] == (15, 7)
    for found in (cart, payments):
        assert mesh.parse([("again", found.yaml)]) == [found]


def test_yaml_1_2_scalars() -> None:
    """`no`, `on` and a date are text, as everyone but YAML 1.1 expects."""
    text = "kind: Service\nname: no\nversions: {on: {labels: {since: 2020-01-01, yes: off}}}"
    (found,) = mesh.parse([("", text)])
    assert found.name == "no"
    assert found.service.versions["on"].labels == {"since": "2020-01-01", "yes": "off"}


HEAD = "kind: Service\nname: cart\n"
TCP = HEAD + "protocol: tcp\nlocalPort: 15432\n"
ROUTE = HEAD + "routes:\n  - backendRefs: [{name: cart}]\n    "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "0.yaml:1:1: the file is empty; write a document with `kind: Service`"),
        ("# nothing\n---\n", "0.yaml:1:1: the file is empty; write a document with `kind: Service`"),
        ("- 1", "0.yaml:1:1: a document must be a mapping, not a list; begin with `kind: Service`"),
        ("cart", "0.yaml:1:1: a document must be a mapping, not 'cart'; begin with `kind: Service`"),
        ("kind: Servise\nname: a", "0.yaml:1:7: kind: must be 'Service', not 'Servise'; did you mean 'Service'?"),
        ("name: cart", "0.yaml:1:1: the key 'kind' is missing; write `kind: Service`"),
        ("kind: Service\nkind: Service", "0.yaml:2:1: duplicate key 'kind'; first on line 1"),
        (HEAD + "1: 2", "0.yaml:3:1: a key must be text, not 1; put it in quotes"),
        (HEAD + "[a]: 2", "0.yaml:3:1: a key must be text"),
        (HEAD + "route: []", "0.yaml:3:1: unknown key 'route'; did you mean 'routes'?"),
        (ROUTE + "match: []", "0.yaml:5:5: unknown key 'match'; did you mean 'matches'?"),
        (ROUTE + "zzz: 1", "0.yaml:5:5: unknown key 'zzz'; known here: name, matches, backendRefs, timeouts"),
        (HEAD + "routes: 5", "0.yaml:3:9: routes: must be a list, not the number 5"),
        (HEAD + "routes: [5]", "0.yaml:3:10: routes[0]: must be a mapping, not the number 5"),
        (ROUTE + "timeouts: {request: 2 s}", "0.yaml:5:25: routes[0].timeouts.request: '2 s' is not a duration: write"),
        (ROUTE + "timeouts: {request: 2}", "0.yaml:5:25: routes[0].timeouts.request: must be a duration such as"),
        (ROUTE + "matches: [{method: get}]", "0.yaml:5:24: routes[0].matches[0].method: must be 'GET', 'HEAD'"),
        (ROUTE + "matches: [{path: {value: x}}]", "0.yaml:5:22: routes[0].matches[0].path: a path starts with '/'"),
        (
            ROUTE + "matches: [{path: {value: /a?b}}]",
            "0.yaml:5:22: routes[0].matches[0].path: a path cannot contain '?'",
        ),
        (ROUTE + "matches: [{path: {value: /a/..}}]", "0.yaml:5:22: routes[0].matches[0].path: a path cannot end"),
        (
            ROUTE + "matches: [{path: {type: RegularExpression, value: '(?=a)'}}]",
            "0.yaml:5:22: routes[0].matches[0].path: the regular expression is not one that RE2 takes: invalid perl operator: (?=",
        ),
        (
            ROUTE + "matches: [{headers: [{name: a, value: 1}]}]",
            "0.yaml:5:43: routes[0].matches[0].headers[0].value: must be text, not the number 1; put it in quotes",
        ),
        (
            ROUTE + "matches: [{headers: [{name: 'a b', value: x}]}]",
            "0.yaml:5:33: routes[0].matches[0].headers[0].name",
        ),
        (HEAD + "routes: [{backendRefs: []}]", "0.yaml:3:24: routes[0].backendRefs: name at least one service"),
        (
            HEAD + "routes: [{backendRefs: [{name: cart, weight: 0}]}]",
            "0.yaml:3:24: routes[0].backendRefs: the weights sum to zero",
        ),
        (
            HEAD + "routes:\n- {name: a, backendRefs: [{name: cart}]}\n- {name: a, backendRefs: [{name: cart}]}",
            "0.yaml:4:1: routes: two routes have the name 'a'",
        ),
        ("kind: Service\nname: Cart", "0.yaml:2:7: name: 'Cart' is not a name"),
        (f"kind: Service\nname: {'a' * 64}", "0.yaml:2:7: name: "),
        ("kind: Service\nname: inbound", "0.yaml:2:7: name: the name 'inbound' is reserved"),
        (HEAD + "versions: {V1: {labels: {a: b}}}", "0.yaml:3:12: versions.V1: 'V1' is not a name"),
        (HEAD + "versions: {v1: {labels: {}}}", "0.yaml:3:25: versions.v1.labels: "),
        (HEAD + "protocol: udp", "0.yaml:3:11: protocol: must be 'http', 'http2', 'grpc' or 'tcp', not 'udp'"),
        (HEAD + "protocol: tcp", "0.yaml:3:11: a tcp service needs a localPort"),
        (HEAD + "localPort: 0", "0.yaml:3:12: localPort: "),
        (HEAD + "localPort: 65536", "0.yaml:3:12: localPort: "),
        (HEAD + "localPort: '80'", "0.yaml:3:12: localPort: must be a whole number, not '80'"),
        (
            TCP + "routes: [{matches: [{}], backendRefs: [{name: cart}]}]",
            "0.yaml:5:20: a tcp service has nothing to match",
        ),
        (
            TCP + "routes: [{backendRefs: [{name: cart}], timeouts: {request: 1s}}]",
            "0.yaml:5:50: a tcp service has no requests",
        ),
        (
            TCP + "routes:\n- backendRefs: [{name: cart}]\n- backendRefs: [{name: cart}]",
            "0.yaml:7:3: a tcp service has at most one route",
        ),
        (HEAD + "routes: [", "0.yaml:4:1: not YAML: did not find expected node content"),
        (HEAD + "x: !!python/object:os.system y", "0.yaml:3:4: the tag tag:yaml.org,2002:python/object:os.system"),
        (HEAD + "x: *nowhere", "0.yaml:3:4: the alias *nowhere has no anchor before it"),
        (HEAD + "x: &x [*x]", "0.yaml:3:8: the alias *x contains itself"),
        ("%YAML 1.1\n---\n" + HEAD, "0.yaml:1:1: YAML directives (%...) are not supported; remove the line"),
        ("a: \x00", "0.yaml:1:1: not YAML: "),
        ("a: \ud800", "0.yaml:1:1: not YAML: "),
    ],
)
def test_each_problem_has_its_place(text: str, expected: str) -> None:
    (problem,) = problems(text)[:1]
    assert problem.startswith(expected)


def test_all_problems_are_found_at_once() -> None:
    found = problems(HEAD + "a: 1\nb: 2", "kind: Service", GOOD)
    assert [problem.split(": ")[0] for problem in found] == ["0.yaml:3:1", "0.yaml:4:1", "1.yaml:1:1"]


def test_a_service_that_is_there_twice() -> None:
    expected = "1.yaml:2:7: the service 'cart' is there twice; first at 0.yaml:3"
    assert problems(GOOD, HEAD) == [expected]


def test_references_are_followed_in_the_whole_mesh() -> None:
    other = "kind: Service\nname: shop\nroutes:\n- backendRefs:\n  - name: cat\n  - {name: cart, version: v3}\n"
    assert problems(GOOD, other, whole_mesh=True) == [
        "1.yaml:5:11: the service 'cat' does not exist; did you mean 'cart'?",
        "1.yaml:6:27: the service 'cart' has no version 'v3'; it has v1, v2",
    ]
    assert problems(other) == []


def test_a_tcp_service() -> None:
    (found,) = mesh.parse([("0.yaml", TCP + "routes: [{backendRefs: [{name: cart, weight: 2}]}]")])
    assert (found.service.protocol, found.service.local_port) == ("tcp", 15432)


def test_tcp_and_http_do_not_mix_and_a_local_port_belongs_to_one() -> None:
    shop = "kind: Service\nname: shop\nlocalPort: 15432\nroutes:\n- backendRefs:\n  - name: cart\n"
    assert problems(TCP, shop, whole_mesh=True) == [
        "1.yaml:3:12: localPort 15432 is the service 'cart''s, too; at 0.yaml:4",
        "1.yaml:6:11: the service 'cart' is tcp, this one http",
    ]


def test_one_version_of_http_stands_in_for_another() -> None:
    refs = "routes: [{backendRefs: [{name: a}, {name: b}, {name: c}]}]"
    kinds = {"a": "http", "b": "http2", "c": "grpc"}
    texts = [f"kind: Service\nname: {name}\nprotocol: {kind}\n{refs}" for name, kind in kinds.items()]
    assert problems(*texts, whole_mesh=True) == []


def billion_laughs(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * (document.MAX_BYTES + 1), "larger than 1 MiB"),
        ("é" * (document.MAX_BYTES // 2 + 1), "larger than 1 MiB"),
        ("[" * 500_000, "nested more than 32 deep"),
        ("- " * 500_000, "nested more than 32 deep"),
        (billion_laughs(10), "aliases expanded"),
        ("a: &a x\nb: [" + "*a, " * 500 + "]", "more than 100 aliases"),
        ("a: [" + "x, " * 200_000 + "]", "more than 100000 values"),
        ("--- x\n" * 20_000, "more than 10000 documents"),
    ],
)
def test_bombs_are_refused_quickly(text: str, expected: str) -> None:
    started = time.process_time()
    (problem,) = problems(text)
    assert expected in problem
    assert time.process_time() - started < 2


def test_aliases_within_bounds_are_fine_and_keep_their_own_places() -> None:
    text = HEAD + "versions:\n  v1: &v {labels: {a: b}}\n  v2: *v\n"
    (found,) = mesh.parse([("", text)])
    assert found.service.versions["v1"] == found.service.versions["v2"]


def test_an_alias_cannot_go_round_the_depth() -> None:
    deep = "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))
    (problem,) = problems(deep)
    assert "nested more than 32 deep" in problem


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text_is_a_mesh_or_a_config_error(text: str) -> None:
    problems(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "routes", "matches", "path", "x"]) | st.text(max_size=4), inner)
    ),
    max_leaves=20,
)
KEYS = ["name", "protocol", "versions", "routes", "backendRefs", "matches", "weight", "path", "headers", "timeouts"]
shaped = st.recursive(
    values | st.sampled_from(["cart", "Exact", "GET", "/", "1s", "("]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), shaped))
def test_any_yaml_is_a_mesh_or_a_config_error_with_places_in_the_text(value: dict[str, object]) -> None:
    text = yaml.safe_dump({"kind": "Service", "name": "cart", **value}, allow_unicode=True)
    try:
        mesh.validate(mesh.parse([("x", text)]))
    except ConfigError as error:
        lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)  # what YAML 1.1 calls a line break
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines)
            assert problem.column >= 1
            assert "\n" not in problem.message


names = st.from_regex(r"[a-z]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "inbound")


@given(st.lists(names, min_size=1, max_size=5, unique=True), st.data())
def test_what_is_written_is_what_is_read(services: list[str], data: st.DataObject) -> None:
    written = [
        {
            "kind": "Service",
            "name": name,
            "routes": [
                {
                    "backendRefs": [
                        {"name": data.draw(st.sampled_from(services)), "weight": data.draw(st.integers(1, 1_000_000))}
                    ],
                    "timeouts": {"request": mesh.format_duration(data.draw(st.integers(0, 10**7)) / 1000)},
                }
            ],
        }
        for name in services
    ]
    found = mesh.parse([("x", yaml.safe_dump_all(written))])
    mesh.validate(found)
    again = [
        {
            "kind": "Service",
            "name": it.name,
            "routes": [
                {
                    "backendRefs": [{"name": ref.name, "weight": ref.weight} for ref in route.backend_refs],
                    "timeouts": {"request": mesh.format_duration(route.timeouts.request)},
                }
                for route in it.service.routes
            ],
        }
        for it in found
    ]
    assert again == written
