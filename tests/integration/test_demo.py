"""`pillion demo`, run as anybody would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pillion.demo.payments_pb2 import ChargeRequest, HistoryRequest
from pillion.demo.payments_pb2_grpc import PaymentsStub
from pillion.demo.processes import children, sessions
from tests.support.cli import PILLION, ROOT
from tests.support.http import request
from tests.support.wait import wait_until


@contextlib.contextmanager
def demo(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo with its temporary files under tmp_path, its output in demo.out and demo.err there."""
    with (tmp_path / "demo.out").open("w") as out, (tmp_path / "demo.err").open("w") as err:
        process = subprocess.Popen(
            [*PILLION, "demo", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"},
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            print((tmp_path / "demo.err").read_text(), (tmp_path / "demo.out").read_text())
            for log in tmp_path.glob("pillion-demo-*/logs/*.log"):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def descendants(pid: int) -> set[int]:
    found = set()
    todo = [pid]
    while todo:
        below = children(todo.pop())
        found.update(below)
        todo += below
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listening(pids: set[int]) -> set[int]:
    """The ports that these processes listen on: proc(5), /proc/net/tcp, state 0A."""
    inodes = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(fd)))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def all_listening() -> set[int]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}


def running(tmp_path: Path) -> str | None:
    """The progress so far, once the commands to try are printed."""
    text = (tmp_path / "demo.err").read_text() + (tmp_path / "demo.out").read_text()
    return text if "config_dump" in text else None


def test_a_short_run_reports_every_edge_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--duration", "8", "--json") as process:
        wait_until(lambda: running(tmp_path) or process.poll() is not None, 90, "the demo runs")
        started = descendants(process.pid)
        ports = listening(started)
        assert len(started) >= 16  # a control plane, 6 sidecars with a worker each, 5 apps
        assert len(ports) >= 20
        assert process.wait(60) == 0

    report = json.loads((tmp_path / "demo.out").read_text())
    assert report["failures"] == 0
    assert report["requests"] >= 150
    assert report["mtls"] is True
    made = report["grpc"]  # each request's answer tells of one call and one stream of three receipts
    assert made["failures"] == 0
    assert made["calls"] == made["streams"] == report["requests"]
    assert made["messages"] == 4 * report["requests"]
    assert {service["name"] for service in report["services"]} == {"storefront", "cart", "payments", "ledger"}
    assert {(edge["source"], edge["destination"]) for edge in report["edges"]} == {
        ("visitor", "storefront"),
        ("storefront", "cart"),
        ("storefront", "payments"),
        ("payments", "ledger"),
    }
    for edge in report["edges"]:
        assert edge["mtls"] is True
        assert edge["peer"] == f"spiffe://pillion.local/service/{edge['destination']}"
        assert edge["success"] == 1
        assert edge["requests"] >= report["requests"] - 5
        assert 0 < edge["p50_ms"] <= edge["p99_ms"]
        assert 23 * 3600 < edge["certificate_seconds_left"] <= 24 * 3600
    assert report["duration_s"] == pytest.approx(8, abs=1)
    check_gone(started, ports)
    assert not list(tmp_path.glob("pillion-demo-*"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_nothing_is_left(tmp_path: Path, how: signal.Signals) -> None:
    """And the commands that it prints work while it runs."""
    with demo(tmp_path) as process:
        text = wait_until(lambda: process.poll() is None and running(tmp_path), 90, "the demo runs")
        started = descendants(process.pid)
        ports = listening(started)
        if how == signal.SIGINT:
            check_commands(text)
        process.send_signal(how)
        assert process.wait(30) == (-how if how == signal.SIGKILL else 0)
    check_gone(started, ports)
    assert bool(list(tmp_path.glob("pillion-demo-*"))) is (how == signal.SIGKILL)


def check_gone(pids: set[int], ports: set[int]) -> None:
    wait_until(lambda: not any(map(alive, pids)), 10, "every process is gone")
    assert not ports & all_listening()


def check_commands(text: str) -> None:
    outbound = int(found(r"curl -H 'Host: cart' http://127.0.0.1:(\d+)/", text))
    admin = int(found(r"http://127.0.0.1:(\d+)/config_dump", text))
    pids = [int(pid) for pid in found(r"kill -9 ([\d ]+)", text).split()]
    if shutil.which("curl"):
        command = ["curl", "-sS", "--noproxy", "*", "-H", "Host: cart", f"http://127.0.0.1:{outbound}/"]
        assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["service"] == "cart"
    answer = request(outbound, host="cart", headers={"x-beta": "1"})
    assert answer.status == 200, answer
    beta = answer.json()
    assert (beta["version"], beta["peer"]) == ("v2", "spiffe://pillion.local/service/storefront")
    check_grpc(outbound)
    dump = request(admin, "/config_dump")
    assert "spiffe://pillion.local/service/cart" in dump.body.decode()
    environment = dict(re.findall(r"(PILLION_TOKEN_FILE|PILLION_CONTROL_PLANE)=([^\s;]+)", text))
    status = subprocess.run(
        [sys.executable, "-m", "pillion.cli", "status", "--json"], env=os.environ | environment, capture_output=True
    )
    assert status.returncode == 0, status.stderr
    proxies = json.loads(status.stdout)["proxies"]
    assert {it["service"]: it["protocol"] for it in proxies} == {
        "visitor": "http", "storefront": "http", "cart": "http", "payments": "grpc", "ledger": "http",
    }  # fmt: skip
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # What is in flight in a worker when it ends may fail, and it ends a moment after its agent.
    wait_until(lambda: sessions().keys().isdisjoint(pids), 5, "they are gone")
    for _ in range(20):
        answer = request(outbound, host="cart")
        assert answer.status == 200, answer
        assert answer.json()["version"] == "v1"


def check_grpc(outbound: int) -> None:
    """payments by its name from anybody's grpcio, and who called is verified on each hop."""
    options = [("grpc.default_authority", "payments"), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{outbound}", options) as channel:
        stub = PaymentsStub(channel)
        receipt = stub.Charge(ChargeRequest(cents=250), timeout=10)
        assert (receipt.cents, receipt.answer["peer"]) == (250, "spiffe://pillion.local/service/storefront")
        assert receipt.answer["calls"]["ledger"]["peer"] == "spiffe://pillion.local/service/payments"
        numbers = [it.number for it in stub.History(HistoryRequest(count=50), timeout=10)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert receipt.number in numbers


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"no {pattern!r} in:\n{text}"
    return match[1]
