"""The control plane's options."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.options import Options, parse


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PILLION_HOME", str(tmp_path))
    assert parse([]) == Options(
        tmp_path / "control-plane", ("127.0.0.1", 15010), ("127.0.0.1", 15014), "pillion.local", "info"
    )


def test_given() -> None:
    options = parse(
        [
            "--data-dir",
            "/d",
            "--grpc",
            "[::1]:0",
            "--web",
            "host.name:99",
            "--trust-domain",
            "a.b",
            "--log-level=debug",
        ]
    )
    assert options == Options(Path("/d"), ("::1", 0), ("host.name", 99), "a.b", "debug")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grpc", "15010"], "--grpc: '15010' is not HOST:PORT"),
        (["--web", "localhost:70000"], "--web: 'localhost:70000'"),
        (["--trust-domain", "A B"], "--trust-domain: 'A B'"),
        (["--nonsense"], "--nonsense"),
        (["extra"], "extra"),
    ],
)
def test_bad_ones_exit_with_2_and_are_named(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(arguments)
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
