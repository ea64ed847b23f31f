"""A worker only moves bytes: what it may not load (DESIGN, section 1), seen from outside in a live one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import echo as echo_upstream
from tests.support.harness import Harness
from tests.support.wait import wait_until

FORBIDDEN = (
    "grpc",
    "google.protobuf",
    "aiohttp",
    "prometheus_client",
    "opentelemetry",
    "cryptography",
    "yaml",
)
# Each as the extension module that a process which imports it has mapped.
MAPPED = ("/cygrpc.", "_upb", "aiohttp", "cryptography", "multidict", "_yaml")


def test_a_live_worker_has_mapped_none_of_them(work: Harness) -> None:
    work.up_control_plane()
    work.apply("kind: Service\nname: web\n---\nkind: Service\nname: echo\n")
    with echo_upstream.in_thread() as app:
        web = work.start_sidecar("web", 9)
        echo = work.up_sidecar("echo", app.port)
        wait_until(web.ready, 30)
        assert work.wait_for(web, "echo").status == 200
        for sidecar in (web, echo):
            (worker,) = sidecar.workers()
            maps = Path(f"/proc/{worker}/maps").read_text()
            assert [name for name in MAPPED if name in maps] == []
            # The check itself works: the agent has what its worker has not.
            assert "/cygrpc." in Path(f"/proc/{sidecar.process.pid}/maps").read_text()


def test_importing_the_worker_imports_none_of_them() -> None:
    code = "import sys, proxy.worker.__main__; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    loaded = done.stdout.split()
    assert [name for name in loaded if name in FORBIDDEN or name.startswith(tuple(f"{x}." for x in FORBIDDEN))] == []
