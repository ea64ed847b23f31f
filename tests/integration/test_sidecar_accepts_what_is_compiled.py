"""The seam: what the control plane compiles, the sidecar's decoders understand; its own ADS client, on a real
stream, converges to it.
"""

from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import mesh
from control_plane.ads.stream import Request as ServerRequest
from control_plane.ads.stream import Stream
from control_plane.compile import Client, Compiler
from control_plane.leases import Instance
from control_plane.snapshot import ROUTE, TYPES
from proxy.agent.xds.protocol import Ads, Request
from proxy.agent.xds.resources import decode
from tests.support.ads_server import MESH

FULL = """
kind: Service
name: web
versions: {a: {labels: {v: a}}, b: {labels: {v: b}}}
routes:
  - name: first
    matches:
      - {path: {value: /p/}, headers: [{name: h, value: x}], method: POST, queryParams: [{name: q, value: y}]}
      - {path: {type: Exact, value: /e}, headers: [{name: h, type: RegularExpression, value: "x+"}]}
      - {path: {type: RegularExpression, value: "/[0-9]+"}}
    backendRefs: [{name: web, version: a, weight: 3}, {name: web, version: b}]
    timeouts: {request: 1500ms}
  - {name: second, backendRefs: [{name: web}], timeouts: {request: 0s}}
"""

TCP = """
kind: Service
name: ledger
protocol: tcp
localPort: 15432
versions: {a: {labels: {v: a}}, b: {labels: {v: b}}}
routes: [{backendRefs: [{name: ledger, version: a, weight: 3}, {name: ledger, version: b}]}]
---
kind: Service
name: by-port
localPort: 15080
"""

HTTP2 = """
kind: Service
name: search
protocol: http2
---
kind: Service
name: stock
protocol: grpc
localPort: 15081
routes:
  - {name: bounded, matches: [{path: {value: /shop.Stock/Watch}}], backendRefs: [{name: stock}], timeouts: {request: 1h}}
  - {name: rest, backendRefs: [{name: stock}]}
"""


@pytest.mark.parametrize("service", ["cart", "ledger", "search", "stock"])
def test_the_decoders_understand_every_resource(service: str) -> None:
    compiler = Compiler("pillion.local")
    documents = mesh.parse([("mesh", "---".join((MESH, FULL, TCP, HTTP2)))])
    mesh.validate(documents)
    found = [
        Instance("cart", "1", "10.0.0.1", 15006, {"version": "v1", "zone": "z"}, 7),
        Instance("web", "1", "fd00::1", 15006, {"v": "b"}),
    ]
    compiler.update({it.name: it for it in documents}, {it.key: it for it in found})
    snapshot = compiler.snapshot(Client(service, 8080, 0, 0))
    for type_url in TYPES:
        for name, resource in snapshot.tables[type_url].by_name.items():
            decoded = decode(type_url, resource.body)
            assert decoded.name == name


MESHES = [
    MESH,
    FULL,
    MESH + "---" + FULL,
    MESH + "---" + TCP,
    MESH + "---" + HTTP2,
    MESH.replace("name: cart\n", "name: cart\nprotocol: grpc\n"),
    MESH.replace("payments", "billing"),
    "kind: Service\nname: cart\nversions: {v9: {labels: {v: x}}}\nroutes: [{backendRefs: [{name: cart, version: v9}]}]",
]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(MESHES), min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_sidecars_client_converges(texts: list[str], seed: int) -> None:
    rng = random.Random(seed)
    compiler = Compiler("pillion.local")
    client = Client("cart", 8080)
    stream = Stream(compiler.snapshot(client))
    ads = Ads(decode)
    to_server: list[Request] = list(ads.open())
    to_client = []

    def step() -> bool:
        if to_server and (not to_client or rng.random() < 0.5):
            it = to_server.pop(0)
            stream.receive(ServerRequest(it.type_url, it.names, it.version, it.nonce, it.error))
            assert it.error is None
        elif to_client:
            response = to_client.pop(0)
            bodies = [resource.body for resource in response.selection.by_name.values()]
            requests, _ = ads.receive(response.type_url, response.selection.version, response.nonce, bodies)
            to_server.extend(requests)
        to_client.extend(stream.responses(0.0))
        return bool(to_server or to_client)

    for text in texts:
        compiler.update({it.name: it for it in mesh.parse([("mesh", text)])}, {})
        stream.update(compiler.snapshot(client))
        for _ in range(rng.randrange(30)):
            step()
    for _ in range(200):
        if not step():
            break
    assert stream.deadline() is None
    for type_url in TYPES:
        wanted = stream.snapshot.tables[type_url].by_name
        assert {name: it.raw for name, it in ads.resources(type_url).items()} == {
            name: it.body for name, it in wanted.items()
        }


patterns = st.text("ab/.*+?()[]{}|^$\\1,0Zxi:=!<>P#- é", max_size=12)
texts = st.text(max_size=8) | patterns
kinds = st.sampled_from(["Exact", "RegularExpression"])
matches = st.fixed_dictionaries(
    {},
    optional={
        "path": st.fixed_dictionaries({"type": kinds | st.just("PathPrefix"), "value": texts | texts.map("/".__add__)}),
        "headers": st.lists(st.fixed_dictionaries({"type": kinds, "name": texts, "value": texts}), max_size=2),
        "queryParams": st.lists(st.fixed_dictionaries({"type": kinds, "name": texts, "value": texts}), max_size=2),
    },
)


@settings(max_examples=300, deadline=None)
@given(matches)
def test_what_the_schema_lets_through_the_sidecar_understands(match: dict[str, object]) -> None:
    """Else one bad route would make every sidecar refuse all routes."""
    document = {"kind": "Service", "name": "cart", "routes": [{"matches": [match], "backendRefs": [{"name": "cart"}]}]}
    try:
        (found,) = mesh.parse([("mesh", yaml.safe_dump(document))])
    except mesh.ConfigError:
        return
    compiler = Compiler("pillion.local")
    compiler.update({"cart": found}, {})
    for name, resource in compiler.snapshot(Client("cart", 8080)).tables[ROUTE].by_name.items():
        assert decode(ROUTE, resource.body).name == name
