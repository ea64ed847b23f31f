"""The configurations that the benchmark writes: good in each proxy, and the same one in Pillion and Envoy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench import peers
from bench.bootstrap import bootstrap
from bench.machine import ENVOY, HAPROXY, NGINX, Tool
from bench.proxies import KINDS
from bench.shapes import HOP, PAIR, REPLY, TCP, Shape, Site, hop, pair
from bench.sidecar import Identities, Sidecar
from proxy.agent.decode import decode_bootstrap

SHAPES = {
    "hop": HOP,
    "pair": PAIR,
    "tcp": TCP,
    "reply": REPLY,
    "idle": hop(clusters=30),
    "h2-hop": hop("h2", http2=True),
    "h2-pair": pair("h2", http2=True),
}


class Surroundings:
    """Upstreams that nobody needs, real certificates."""

    def __init__(self, directory: Path) -> None:
        self.identities = Identities(directory)

    def upstream(self, kind: str) -> int:
        return {"http": 8080, "bytes": 8081, "h2": 8082}[kind]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    return Surroundings(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=SHAPES)
def sidecars(request: pytest.FixtureRequest, surroundings: Surroundings, tmp_path: Path) -> list[Sidecar]:
    shape: Shape = SHAPES[request.param]
    return shape.sidecars(Site(surroundings, "subject", tmp_path))


def needs(tool: Tool) -> pytest.MarkDecorator:
    return pytest.mark.skipif(tool.path() is None, reason=tool.missing())


def check(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pillion_takes_it_whole(sidecars: list[Sidecar]) -> None:
    for sidecar in sidecars:
        found = decode_bootstrap(bootstrap(sidecar), sidecar.name)
        assert found.warnings == ()
        assert [listener.address.port for listener in found.snapshot.listeners.values()] == [sidecar.listen]
        assert len(found.snapshot.clusters) == (0 if sidecar.role == "reply" else sidecar.clusters)


@pytest.mark.envoy
@needs(ENVOY)
def test_envoy_takes_the_same_file(sidecars: list[Sidecar], tmp_path: Path) -> None:
    for sidecar in sidecars:
        path = tmp_path / "bootstrap.yaml"
        path.write_text(bootstrap(sidecar))
        check([str(ENVOY.path()), "--mode", "validate", "-c", str(path), "--disable-hot-restart"])


def test_pillion_and_envoy_are_given_the_same_file(sidecars: list[Sidecar], tmp_path: Path) -> None:
    kinds = {kind.name: kind for kind in KINDS}
    texts = []
    for name in ("pillion", "envoy"):
        directory = tmp_path / name
        directory.mkdir()
        kinds[name].write(sidecars[0], directory, name)
        (file,) = directory.iterdir()
        texts.append(file.read_text())
    assert texts[0] == texts[1]


def test_everything_is_on(surroundings: Surroundings, tmp_path: Path) -> None:
    sidecar = HOP.sidecars(Site(surroundings, "subject", tmp_path))[0]
    snapshot = decode_bootstrap(bootstrap(sidecar), "hop").snapshot
    (cluster,) = snapshot.clusters.values()
    assert cluster.outlier_detection is not None
    for feature in ("retry_policy", "json_format", "tracing", "generate_request_id", "FileAccessLog"):
        assert feature in bootstrap(sidecar)


@needs(HAPROXY)
def test_haproxy_takes_its_own(sidecars: list[Sidecar], tmp_path: Path) -> None:
    for sidecar in sidecars:
        path = tmp_path / "haproxy.cfg"
        path.write_text(peers.haproxy(sidecar))
        check([str(HAPROXY.path()), "-c", "-f", str(path)])


@needs(NGINX)
def test_nginx_takes_its_own(sidecars: list[Sidecar], tmp_path: Path) -> None:
    for sidecar in sidecars:
        if sidecar.role == "tcp":
            assert any(kind.name == "nginx" and kind.missing("tcp") for kind in KINDS)
            continue
        path = tmp_path / "nginx.conf"
        path.write_text(peers.nginx(sidecar, tmp_path))
        check([str(NGINX.path()), "-t", "-c", str(path), "-e", "stderr"])


def test_the_identities_are_each_others_peers(surroundings: Surroundings) -> None:
    out, inbound = surroundings.identities.outbound, surroundings.identities.inbound
    assert (out.peer, inbound.peer) == ("spiffe://bench.local/service/in", "spiffe://bench.local/service/out")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    for tls, own in ((out, inbound.peer), (inbound, out.peer)):
        text = subprocess.check_output([openssl, "x509", "-in", str(tls.chain), "-noout", "-ext", "subjectAltName"])
        assert own.encode() in text
