"""What is compiled, as a static bootstrap, is accepted by a real Envoy (SDS replaced by files)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format

from control_plane import mesh
from control_plane.compile import Client, Compiler
from control_plane.leases import Instance
from tests.support.envoy_files import static_bootstrap, write_certificates

ENVOY = Path(sys.executable).with_name("envoy")
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not (ENVOY.exists() or shutil.which("envoy")), reason="no envoy beside this Python"),
]

MESH = """
kind: Service
name: cart
versions: {v1: {labels: {version: v1}}, v2: {labels: {version: v2}}, v3: {labels: {version: v3}}}
routes:
  - name: beta
    matches:
      - {path: {type: PathPrefix, value: /beta/}, headers: [{name: X-Beta, value: "1"}], method: GET}
      - {path: {type: Exact, value: /exact}, queryParams: [{name: q, value: "a.*", type: RegularExpression}]}
      - path: {type: RegularExpression, value: "/[a-z]+/x"}
        headers: [{name: a, type: RegularExpression, value: .+}]
    backendRefs: [{name: cart, version: v3}]
  - name: canary
    backendRefs:
      - {name: cart, version: v1, weight: 95}
      - {name: cart, version: v2, weight: 5}
      - {name: payments, weight: 0}
    timeouts: {request: 2s}
  - {name: forever, backendRefs: [{name: payments}], timeouts: {request: 0s}}
---
kind: Service
name: payments
localPort: 19080
---
kind: Service
name: ledger
protocol: tcp
localPort: 15432
versions: {v1: {labels: {version: v1}}, v2: {labels: {version: v2}}}
routes: [{backendRefs: [{name: ledger, version: v1, weight: 3}, {name: ledger, version: v2}]}]
---
kind: Service
name: search
protocol: http2
---
kind: Service
name: stock
protocol: grpc
localPort: 19081
routes:
  - name: bounded
    matches: [{path: {type: Exact, value: /shop.Stock/Watch}}]
    backendRefs: [{name: stock}]
    timeouts: {request: 1h}
  - {name: rest, backendRefs: [{name: stock}]}
"""


@pytest.mark.parametrize("service", ["storefront", "ledger", "search", "stock"])
def test_envoy_accepts_what_is_compiled(tmp_path: Path, service: str) -> None:
    compiler = Compiler("pillion.local")
    documents = mesh.parse([("mesh.yaml", MESH)])
    mesh.validate(documents)
    instances = [
        Instance("cart", "a", "10.0.0.1", 15006, {"version": "v1", "zone": "z"}, 3),
        Instance("cart", "b", "fd00::1", 15006, {"version": "v2"}),
        Instance("payments", "p", "10.0.0.3", 15006),
    ]
    compiler.update({it.name: it for it in documents}, {it.key: it for it in instances})
    snapshot = compiler.snapshot(Client(service, 8080, 15006, 15001))
    assert snapshot.consistent() == []
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(json_format.MessageToJson(static_bootstrap(snapshot, write_certificates(tmp_path))))
    done = subprocess.run(
        [ENVOY if ENVOY.exists() else "envoy", "--mode", "validate", "-c", bootstrap, "--log-level", "warn"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deprecated" not in done.stderr
    json.loads(bootstrap.read_text())
