"""The agent as a process: start, admin over HTTP, signals, exit codes. Its workers are channel_worker.py."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "support" / "agent_with_channel_worker.py"
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}


def bootstrap(port, admin, host="127.0.0.1"):
    route = {"match": {"prefix": "/"}, "route": {"cluster": "c"}}
    hcm = {
        "@type": HCM,
        "stat_prefix": "s",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]}
    endpoint = {"endpoint": {"address": address(host, 8080)}}
    return {
        "node": {"id": "me", "cluster": "us"},
        "admin": {"address": address("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [{"name": "l", "address": address("127.0.0.1", port), "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "c",
                    "type": "STATIC" if host == "127.0.0.1" else "STRICT_DNS",
                    "connect_timeout": "1s",
                    "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        },
    }


def start(mode, *arguments):
    return subprocess.Popen(
        [sys.executable, "-P", str(SCRIPT), mode, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Running:
    def __init__(self, process, port, admin):
        self.process, self.port, self.admin = process, port, admin
        self.ready = process.stdout.readline()

    def get(self, path, method="GET", **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310  # our own admin port
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ask(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.settimeout(5)
            return b"".join(iter(lambda: sock.recv(4096), b"")).decode().split(" ")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@contextmanager
def running(tmp_path, mode="serve", *arguments, host="127.0.0.1"):
    port, admin = free_port(), free_port()
    path = tmp_path / "bootstrap.yaml"
    path.write_text(yaml.safe_dump(bootstrap(port, admin, host)))
    process = start(mode, "-c", str(path), *arguments)
    try:
        yield Running(process, port, admin)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_one_line_when_ready_and_exit_0_on_sigterm(tmp_path):
    with running(tmp_path, "serve", "--workers", "2") as sidecar:
        assert sidecar.ready == (
            f"pillion proxy ready: l 127.0.0.1:{sidecar.port}, admin 127.0.0.1:{sidecar.admin}, 2 workers\n"
        )
        assert sidecar.ask()[1] == "c"
        status, out, _err = sidecar.stop()
        assert (status, out) == (0, "")
        with pytest.raises(ConnectionRefusedError):
            sidecar.ask()


def test_admin(tmp_path):
    with running(tmp_path, host="localhost") as sidecar:
        assert sidecar.get("/ready") == (200, "LIVE\n")
        assert sidecar.get("/healthz") == (200, "OK\n")
        assert "/config_dump" in sidecar.get("/")[1]
        assert "c::127.0.0.1:8080::health_flags::healthy\n" in sidecar.get("/clusters")[1]
        hosts = json.loads(sidecar.get("/clusters?format=json")[1])["cluster_statuses"][0]["host_statuses"]
        assert hosts[0]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8080}
        sections = json.loads(sidecar.get("/config_dump")[1])["configs"]
        assert sections[0]["bootstrap"]["node"]["id"] == "me"
        assert [s["@type"] for s in sections][1:3] == ["ClustersConfigDump", "EndpointsConfigDump"]
        assert json.loads(sidecar.get("/certs")[1]) == {"certificates": []}
        sidecar.ask()
        for path in ("/metrics", "/stats/prometheus"):
            text = sidecar.get(path)[1]
            assert 'downstream_cx_total{listener="l"} 1.0' in text
            assert "pillion_worker_restarts_total 0.0" in text
        assert sidecar.get("/nothing")[0] == 404
        assert sidecar.get("/quitquitquit")[0] == 405


def test_log_level_changes(tmp_path):
    with running(tmp_path) as sidecar:
        assert sidecar.get("/logging") == (200, "level: info\n")
        assert sidecar.get("/logging?level=debug", "POST") == (200, "level: debug\n")
        assert sidecar.get("/logging") == (200, "level: debug\n")
        status, text = sidecar.get("/logging?level=loud", "POST")
        assert status == 400
        assert "one of trace, debug" in text


def test_a_page_of_another_site_gets_nothing(tmp_path):
    with running(tmp_path) as sidecar:
        assert sidecar.get("/quitquitquit", "POST", Origin="http://evil.example")[0] == 403
        assert sidecar.get("/config_dump", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
        assert sidecar.get("/config_dump", Host="evil.example:15000")[0] == 403
        assert sidecar.get("/ready", Host=f"localhost:{sidecar.admin}")[0] == 200


def test_quitquitquit(tmp_path):
    with running(tmp_path) as sidecar:
        assert sidecar.get("/quitquitquit", "POST") == (200, "OK\n")
        assert sidecar.process.wait(10) == 0


def test_drain_listeners_keeps_the_agent(tmp_path):
    with running(tmp_path) as sidecar:
        worker = int(sidecar.ask()[0])
        assert sidecar.get("/drain_listeners", "POST") == (200, "OK\n")
        assert sidecar.get("/ready") == (503, "DRAINING\n")
        wait_until(lambda: gone(worker))
        with pytest.raises(ConnectionRefusedError):
            sidecar.ask()
        assert sidecar.stop()[0] == 0


def test_workers_end_with_a_killed_agent(tmp_path):
    with running(tmp_path) as sidecar:
        worker = int(sidecar.ask()[0])
        sidecar.stop(signal.SIGKILL)
        wait_until(lambda: gone(worker))


def test_a_second_signal_does_not_wait(tmp_path):
    with running(tmp_path, "stubborn", "--drain-time", "60s") as sidecar:
        sidecar.process.send_signal(signal.SIGINT)
        wait_until(lambda: "DRAINING" in sidecar.get("/ready")[1])
        assert sidecar.stop()[0] == 0


def test_restarts_are_counted_and_logged(tmp_path):
    with running(tmp_path) as sidecar:
        os.kill(int(sidecar.ask()[0]), signal.SIGKILL)
        assert sidecar.ask()[1] in ("c", "")
        assert "pillion_worker_restarts_total 1.0" in sidecar.get("/metrics")[1]
        assert "worker died pid=" in sidecar.stop()[2]


def fails(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_port_in_use_names_the_listener(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "b.yaml"
        path.write_text(yaml.safe_dump(bootstrap(port, free_port())))
        assert fails("serve", "-c", str(path)) == (
            2,
            "",
            f"pillion proxy: listener 'l': cannot listen on 127.0.0.1:{port}: Address already in use\n",
        )
        path.write_text(yaml.safe_dump(bootstrap(free_port(), port)))
        assert fails("serve", "-c", str(path)) == (
            2,
            "",
            f"pillion proxy: admin: cannot listen on 127.0.0.1:{port}: Address already in use\n",
        )


def test_a_bad_bootstrap_names_file_and_path(tmp_path):
    config = bootstrap(free_port(), free_port())
    config["static_resources"]["clusters"][0]["nonsense"] = 1
    path = tmp_path / "b.yaml"
    path.write_text(yaml.safe_dump(config))
    status, out, err = fails("serve", "-c", str(path))
    assert (status, out) == (2, "")
    assert err.startswith(f"pillion proxy: {path}: static_resources.clusters[0]")
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "not a token file\n"])
def test_a_bad_token_file_is_named(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content)
    arguments = ("--service", "cart", "--app-port", "1", "--control-plane", "127.0.0.1:1", "--token-file", str(path))
    status, _out, err = fails("serve", *arguments, "--admin-port", "0", "--state-dir", str(tmp_path / "s"))
    assert status == 2
    assert err.startswith(f"pillion proxy: --token-file: {path}: not a token file")


ROOTS = """-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUAJBVZH0wYw0Yk0rGnm3mDq0kGVQwCgYIKoZIzj0EAwIw
-----END CERTIFICATE-----
"""


def test_sigterm_while_the_control_plane_is_not_reached(tmp_path):
    path, admin = tmp_path / "token", free_port()
    path.write_text("spiffe://pillion.local/service/cart tok\n" + ROOTS)
    arguments = ("--service", "cart", "--app-port", "1", "--control-plane", "127.0.0.1:1", "--token-file", str(path))
    ports = ("--admin-port", str(admin), "--outbound-port", str(free_port()), "--inbound-port", str(free_port()))
    process = start("serve", *arguments, *ports, "--state-dir", str(tmp_path / "s"))
    try:

        def phase():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=5) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return None

        wait_until(lambda: phase() == (503, "PRE_INITIALIZING\n"), 10)
        process.terminate()
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, "")
    assert "tok\n" not in err


def test_a_token_for_another_service_is_refused_before_any_network(tmp_path):
    path = tmp_path / "token"
    path.write_text("spiffe://pillion.local/service/web tok\n-----BEGIN CERTIFICATE-----\n")
    arguments = ("--service", "cart", "--app-port", "1", "--control-plane", "127.0.0.1:1", "--token-file", str(path))
    status, _out, err = fails("serve", *arguments, "--admin-port", "0", "--state-dir", str(tmp_path / "s"))
    assert status == 2
    assert "is for spiffe://pillion.local/service/web, not for spiffe://pillion.local/service/cart" in err
    assert "tok " not in err


@pytest.mark.parametrize("how", ["<&- >&- 2>&-", ">/dev/full", "> >(exec true)"])
def test_it_serves_whatever_becomes_of_its_output(tmp_path, how):
    port, admin = free_port(), free_port()
    path = tmp_path / "bootstrap.yaml"
    path.write_text(yaml.safe_dump(bootstrap(port, admin)))
    command = f'exec "{sys.executable}" -P "{SCRIPT}" serve -c "{path}" 2>"{tmp_path}/err" {how}'
    process = subprocess.Popen(["bash", "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        sidecar = Running.__new__(Running)
        sidecar.process, sidecar.port, sidecar.admin = process, port, admin

        def live():
            try:
                return sidecar.get("/ready") == (200, "LIVE\n")
            except OSError:
                return False

        wait_until(live, 10)
        worker = int(sidecar.ask()[0])
        for pid in (process.pid, worker):
            for fd in (0, 1, 2):
                assert os.readlink(f"/proc/{pid}/fd/{fd}").startswith(("/", "pipe:")), "a socket took its place"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_what_is_no_http_is_400_and_no_noise(tmp_path):
    with running(tmp_path) as sidecar:
        for garbage in (
            b"\x16\x03\x01\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 99_999 + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", sidecar.admin), 5) as sock:
                sock.sendall(garbage)
                assert sock.recv(100).startswith(b"HTTP/1.0 400")
        status, _out, err = sidecar.stop()
        assert status == 0
        assert "Traceback" not in err
