"""The seam: what the control plane compiles, the sidecar's decoders understand; its own ADS client, on a real
stream, converges to it.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import mesh
from control_plane.ads.stream import Request as ServerRequest
from control_plane.ads.stream import Stream
from control_plane.compile import Client, Compiler
from control_plane.leases import Instance
from control_plane.snapshot import TYPES
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


def test_the_decoders_understand_every_resource() -> None:
    compiler = Compiler("pillion.local")
    documents = mesh.parse([("mesh", MESH + "---" + FULL)])
    mesh.validate(documents)
    found = [
        Instance("cart", "1", "10.0.0.1", 15006, {"version": "v1", "zone": "z"}, 7),
        Instance("web", "1", "fd00::1", 15006, {"v": "b"}),
    ]
    compiler.update({it.name: it for it in documents}, {it.key: it for it in found})
    snapshot = compiler.snapshot(Client("cart", 8080, 0, 0))
    for type_url in TYPES:
        for name, resource in snapshot.tables[type_url].by_name.items():
            decoded = decode(type_url, resource.body)
            assert decoded.name == name


MESHES = [
    MESH,
    FULL,
    MESH + "---" + FULL,
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
