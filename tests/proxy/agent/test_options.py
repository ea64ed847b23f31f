"""The command line of the sidecar."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent.options import duration, parse


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("x")
    return str(path)


def mesh(token, *more):
    return [
        "--service",
        "cart",
        "--app-port",
        "8080",
        "--control-plane",
        "127.0.0.1:15010",
        "--token-file",
        token,
        *more,
    ]


def test_mesh_mode_with_defaults(token, monkeypatch, tmp_path):
    monkeypatch.setenv("PILLION_HOME", str(tmp_path))
    options = parse(mesh(token))
    assert options.bootstrap is None
    assert (options.admin_port, options.workers, options.drain_time) == (15000, 1, 5.0)
    found = options.mesh
    assert (found.outbound_port, found.inbound_port, found.address, found.labels) == (15001, 15006, None, ())
    assert found.instance.endswith("-15006")
    assert found.state_dir == tmp_path / "proxy" / f"cart~{found.instance}"
    assert found.node_id == f"cart~{found.instance}"


def test_everything_given(token, tmp_path):
    options = parse(
        mesh(
            token,
            *("--instance", "c-1", "--address", "10.0.0.7", "--label", "version=v1", "--label", "a=b"),
            *(
                "--outbound-port",
                "1",
                "--inbound-port",
                "2",
                "--admin-port",
                "0",
                "--state-dir",
                str(tmp_path),
            ),
            *("--workers", "3", "--drain-time", "1m30s", "--log-level", "debug"),
        )
    )
    assert options.mesh.labels == (("a", "b"), ("version", "v1"))
    assert (options.mesh.instance, options.mesh.address) == ("c-1", "10.0.0.7")
    assert (options.workers, options.drain_time, options.log_level, options.admin_port) == (
        3,
        90.0,
        "debug",
        0,
    )


def test_bootstrap_mode(token):
    options = parse(["-c", token, "--workers", "2", "--allow-unsupported"])
    assert options.mesh is None
    assert options.admin_port is None
    assert options.allow_unsupported


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give -c BOOTSTRAP, or --service"),
        (["--service", "cart"], "--app-port, --control-plane, --token-file missing"),
        (["-c", "/nowhere/x.yaml"], "/nowhere/x.yaml: no such file"),
        (["-c", "/"], "is a directory"),
        (["-c", "TOKEN", "--service", "cart"], "--service cannot be combined with -c"),
        (["-c", "TOKEN", "--inbound-port", "1"], "--inbound-port cannot be combined with -c"),
        (["-c", "TOKEN", "--workers", "0"], "'0' is not a number from 1 to 64"),
        (["-c", "TOKEN", "--unknown"], "unrecognized arguments: --unknown"),
        (["-c", "TOKEN", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["MESH", "--service", "Cart"], "'Cart' is not a service name"),
        (["MESH", "--app-port", "99999"], "'99999' is not a number from 1 to 65535"),
        (["MESH", "--control-plane", "somewhere"], "'somewhere' is not HOST:PORT"),
        (["MESH", "--address", "cart-1.local"], "'cart-1.local' is not an IP address"),
        (["MESH", "--drain-time", "soon"], "'soon' is not a duration"),
        (["MESH", "--label", "novalue"], "'novalue' is not KEY=VALUE"),
        (["MESH", "--label", "a=1", "--label", "a=2"], "--label: a key is given twice"),
        (["MESH", "--instance", "../x"], "'../x' is not an instance id"),
        (["MESH", "--admin-port", "15001"], "--admin-port and --outbound-port are both 15001"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(argv, message, token, capsys):
    full = [token if word == "TOKEN" else word for word in argv]
    if full[:1] == ["MESH"]:
        full = mesh(token, *full[1:])
    with pytest.raises(SystemExit) as caught:
        parse(full)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("pillion proxy: ")
    assert error.count("\n") == 1


def test_help_shows_both_forms_and_every_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "usage: pillion proxy -c FILE [options] pillion proxy --service NAME --app-port P" in shown
    assert "(default $PILLION_HOME/proxy/SERVICE~INSTANCE; PILLION_HOME is ~/.pillion)" in shown
    assert "such as 250ms or 1m30s (default 5s)" in shown


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations(h, m, s, ms):
    assert duration(f"{h}h{m}m{s}s{ms}ms") == pytest.approx(h * 3600 + m * 60 + s + ms / 1000)


@pytest.mark.parametrize("text", ["", "5", "s", "1.5s", "-1s", "123456s", "1h1h1h1h1h", " 1s", "١s"])
def test_not_durations(text):
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)
