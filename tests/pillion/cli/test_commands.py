"""The commands against a control plane that runs as a process of its own."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from pillion.cli import main
from pillion.client import TokenFile
from tests.support import leaks
from tests.support.cli import PILLION, ROOT, pillion

READY = "pillion control plane ready: "


class Process:
    """`pillion control-plane` on free ports; `output` is its ready line."""

    def __init__(self, data: Path) -> None:
        command = [
            *PILLION,
            "control-plane",
            "--data-dir",
            str(data),
            "--grpc",
            "127.0.0.1:0",
            "--web",
            "127.0.0.1:0",
        ]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        leaks.OWNED.add(self.process.pid)
        assert self.process.stdout is not None
        self.output = self.process.stdout.readline()
        assert self.output.startswith(READY), self.process.stderr and self.process.stderr.read()
        self.grpc, self.web = (part.split(" ")[1] for part in self.output.removeprefix(READY).split(", ")[:2])

    def end(self, number: signal.Signals) -> int:
        """Send the signal; the exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=10)
        return self.process.returncode


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Plane:
    data: Path
    grpc: str

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Done:
        """Run `pillion ARGUMENTS` in this process: a process for each would cost most of a second."""
        where = {"PILLION_CONTROL_PLANE": self.grpc, "PILLION_TOKEN_FILE": str(self.data / "operator.token")}
        code = 0
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(io.StringIO()) as stdout,
            redirect_stderr(io.StringIO()) as stderr,
        ):
            for name, value in where.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["pillion", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Done(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    data = tmp_path_factory.mktemp("control-plane")
    process = Process(data)
    yield Plane(data, process.grpc)
    assert process.end(signal.SIGTERM) == 0


def test_apply_and_get(plane: Plane, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("# the cart\nkind: Service\nname: cart\n---\nkind: Service\nname: payments\nprotocol: grpc\n")
    assert plane("apply", "-f", file, "--dry-run").stdout.splitlines() == [
        "service cart added (dry run)",
        "service payments added (dry run)",
        "revision 0, nothing was changed (dry run)",
    ]
    answer = json.loads(plane("apply", "-f", tmp_path, "--json").stdout)
    assert answer == {
        "revision": 1, "dry_run": False, "added": ["cart", "payments"], "changed": [], "unchanged": [],
    }  # fmt: skip
    done = plane("apply", "-f", "-", stdin=file.read_text())
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "revision 1")
    assert plane("get", "cart").stdout == "# the cart\nkind: Service\nname: cart\n"
    listed = json.loads(plane("get", "--json").stdout)
    found = [(it["name"], it["protocol"], it["revision"]) for it in listed["services"]]
    assert found == [("cart", "http", 1), ("payments", "grpc", 1)]
    assert [line.split() for line in plane("get").stdout.splitlines()[1:]] == [
        ["SERVICE", "PROTOCOL", "REVISION"], ["cart", "http", "1"], ["payments", "grpc", "1"],
    ]  # fmt: skip
    missing = plane("get", "crat")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == "pillion: no service 'crat' is configured; did you mean 'cart'?\n"


def test_bad_yaml_is_refused_with_its_place(plane: Plane) -> None:
    done = plane("apply", "-f", "-", stdin="kind: Service\nname: x\nrouts: []\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pillion: stdin:3:1: unknown key 'routs'; did you mean 'routes'?\n"


def test_bad_files_are_named(plane: Plane, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"kind: Service\nname: caf\xe9\n")
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("absent.yaml", "absent.yaml: No such file or directory"),
        ("latin.yaml", "latin.yaml:2: not UTF-8"),
        ("empty", "empty: no .yaml file"),
    ):
        done = plane("apply", "-f", tmp_path / name)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_file_without_end_is_refused(plane: Plane) -> None:
    done = plane("apply", "-f", "/dev/zero")
    assert (done.returncode, done.stderr) == (2, "pillion: more than 8 MiB of YAML; apply fewer files at once\n")


def test_token(plane: Plane) -> None:
    file = TokenFile.parse(plane("token", "cart", "--lifetime", "1m30s").stdout)
    assert file.identity == "spiffe://pillion.local/service/cart"
    answer = json.loads(plane("token", "cart", "--json").stdout)
    assert TokenFile.parse(answer["token_file"]).service == "cart"
    assert plane("token", "cart").stderr == ""
    mistyped = plane("token", "crat")
    assert (mistyped.returncode, TokenFile.parse(mistyped.stdout).service) == (0, "crat")
    assert mistyped.stderr == "pillion: note: no service 'crat' is configured; nobody can call it until it is\n"
    for arguments, says in (
        (["Cart"], "'Cart' is not a service name"),
        (["cart", "--lifetime", "25h"], "24 h"),
        (["cart", "--lifetime", "soon"], "--lifetime 'soon' is not a duration"),
    ):
        done = plane("token", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr


def test_status(plane: Plane) -> None:
    assert "no instance is registered" in plane("status").stdout
    answer = json.loads(plane("status", "--json").stdout)
    assert (answer["trust_domain"], answer["proxies"], answer["instances"]) == ("pillion.local", [], [])


def test_a_wrong_token_or_address_is_one_line(plane: Plane, tmp_path: Path) -> None:
    good = TokenFile.load(plane.data / "operator.token")
    wrong = tmp_path / "wrong.token"
    wrong.write_text(good.render().replace(good.token, "guess"))
    done = plane("get", "--token-file", wrong)
    assert done.returncode == 1
    assert "not the operator's token" in done.stderr
    done = plane("get", "--token-file", tmp_path / "absent.token")
    assert done.returncode == 2
    assert "absent.token: no such file" in done.stderr
    done = plane("get", "--control-plane", "nowhere")
    assert done.returncode == 2
    assert "'nowhere' is not HOST:PORT" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = plane("get", "--control-plane", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"cannot reach the control plane at 127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_place_that_cannot_be_used_is_named(plane: Plane, tmp_path: Path) -> None:
    free = ["--grpc", "127.0.0.1:0", "--web", "127.0.0.1:0"]
    used = f"{plane.grpc}: address already in use"
    for arguments, says in (
        (["--data-dir", tmp_path / "a", *free, "--grpc", plane.grpc], f"--grpc {used}"),
        (["--data-dir", tmp_path / "b", *free, "--web", plane.grpc], f"--web {used}"),
        (["--data-dir", plane.data, *free], "another control plane uses this data directory"),
        (["--data-dir", "/dev/null", *free], "/dev/null: "),
    ):
        done = pillion("control-plane", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr.splitlines()[-1]


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = Process(data)
    mesh = Plane(data, process.grpc)
    assert mesh("apply", "-f", "-", stdin="kind: Service\nname: cart\n").returncode == 0
    token = (data / "operator.token").read_bytes()
    process.end(signal.SIGKILL)
    process = Process(data)
    try:
        assert (data / "operator.token").read_bytes() == token
        assert [it["name"] for it in json.loads(Plane(data, process.grpc)("get", "--json").stdout)["services"]] == [
            "cart"
        ]
    finally:
        assert process.end(signal.SIGINT) == 0


def test_a_daemon_does_not_carry_the_command_line() -> None:
    code = (
        "import sys; sys.argv = ['pillion', 'proxy', '-c', 'nowhere.yaml']\n"
        "from pillion.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 2\n"
        "heavy = {'typer', 'click', 'rich', 'grpc'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nowhere.yaml" in done.stderr


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['pillion', '--help']\n"
        "from pillion.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'google.protobuf', 'rich', 'aiohttp', 'pydantic', 'cryptography', 'uvloop'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 5
    for command in ("apply", "control-plane", "demo", "get", "proxy", "status", "token"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("redirection", "code", "says"), [(">&-", 0, ""), (">/dev/full", 1, "cannot write the output")]
)
def test_an_output_that_cannot_be_written_is_one_line(plane: Plane, redirection: str, code: int, says: str) -> None:
    address = ("--control-plane", plane.grpc, "--token-file", str(plane.data / "operator.token"))
    line = " ".join((sys.executable, "-m", "pillion.cli", "get", "--json", *address, redirection))
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == code
