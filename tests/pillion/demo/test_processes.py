"""Nothing that a Tree starts outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillion.demo import processes
from pillion.demo.processes import ProcessFailed, Tree, children, free_ports, is_free
from tests.support.wait import wait_until

SLEEP = [sys.executable, "-S", "-c", "import time; print('ready', flush=True); time.sleep(60)"]
# Ignores SIGTERM, as does its child, which is in a group of its own.
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'], process_group=0)\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(60)",
]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    yield tree
    tree.stop(grace=0.2)


def alive(pid: int) -> bool:
    """False for a zombie, too: nobody may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stop_ends_a_process_and_its_children(tree: Tree) -> None:
    process = tree.start("stubborn", STUBBORN)
    wait_until(lambda: process.find(r"child (\d+)"), 5)
    found = process.find(r"child (\d+)")
    assert found is not None
    child = int(found[1])
    assert children(process.pid) == [child]

    tree.stop(grace=0.1)

    wait_until(lambda: not alive(process.pid) and not alive(child), 5)


def test_a_process_dies_with_its_owner(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pillion.demo.processes import Tree\n"
        f"process = Tree(Path({str(tmp_path)!r})).start('x', {SLEEP!r})\n"
        "while not process.find('ready'): time.sleep(0.01)\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
    wait_until(lambda: not alive(pid), 5)


def test_a_process_that_ends_too_early_says_why(tree: Tree) -> None:
    process = tree.start("broken", [sys.executable, "-S", "-c", "print('no such file: x'); raise SystemExit(2)"])
    with pytest.raises(ProcessFailed, match=r"(?s)broken ended with status 2.*no such file: x"):
        wait_until(lambda: process.find("ready"), 5)
    assert process.died


def test_a_command_that_does_not_exist_is_a_failed_process(tree: Tree) -> None:
    process = tree.start("missing", ["/nonexistent/program"])
    with pytest.raises(ProcessFailed, match="missing ended with status 1"):
        wait_until(lambda: process.find("ready"), 5)


def test_killed_by_somebody_else_is_died_and_stopped_by_us_is_not(tree: Tree) -> None:
    first, second = tree.start("a", SLEEP), tree.start("b", SLEEP)
    wait_until(lambda: first.find("ready") and second.find("ready"), 5)
    os.kill(first.pid, signal.SIGKILL)
    second.terminate()
    wait_until(lambda: first.returncode is not None and second.returncode is not None, 5)
    assert list(tree.died()) == [first]


def test_logs_are_cut_when_they_grow_too_long(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_LIMIT", 100)
    process = tree.start("talker", [sys.executable, "-S", "-c", "print('x' * 200)"])
    assert process.wait(5) == 0
    tree.trim()
    assert process.log.stat().st_size == 0


def test_free_ports_are_different_and_free() -> None:
    ports = [*free_ports(20), *(free_ports(1)[0] for _ in range(500))]
    assert len(set(ports)) == 520  # also over several calls: a port is not taken at once by whom it is for
    with socket.create_server(("127.0.0.1", ports[0])):
        assert not is_free(ports[0])
    assert is_free(ports[0])
