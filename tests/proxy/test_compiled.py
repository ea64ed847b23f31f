"""The compiled form: what is in it, when it is used, that a worker runs from it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from proxy import compiled
from tests.support.worker import worker


def test_the_request_path_is_compiled_and_nothing_that_is_pickled_or_not_of_a_worker() -> None:
    names = {path.as_posix() for path in compiled.modules()}
    assert {"http/h1/reader.py", "worker/exchange.py", "worker/upstream.py", "telemetry/operators.py"} <= names
    assert not [name for name in names if name.startswith(("agent/", "config/")) or name == "worker/channel.py"]
    assert not [path for path in compiled.sources() if path.parts[0] == "agent"]


def test_a_tree_of_another_source_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compiled.INTERPRETED, raising=False)
    monkeypatch.setattr(compiled, "DIRECTORY", tmp_path)
    assert compiled.path() is None
    (tmp_path / "digest").write_text(compiled.digest())
    assert compiled.path() == tmp_path
    monkeypatch.setenv(compiled.INTERPRETED, "1")
    assert compiled.path() is None
    monkeypatch.delenv(compiled.INTERPRETED)
    source = tmp_path / "source"
    shutil.copytree(compiled.SOURCE, source)
    monkeypatch.setattr(compiled, "SOURCE", source)
    assert compiled.path() == tmp_path
    with (source / "worker" / "exchange.py").open("a") as file:
        file.write("# changed\n")
    assert compiled.path() is None


async def test_workers_run_from_it() -> None:
    async with worker() as one:
        await one.count("downstream_rq_total")  # it is up
        maps = Path(f"/proc/{one.process.pid}/maps").read_text()  # noqa: ASYNC240
    assert ("__mypyc" in maps) == (compiled.path() is not None)
    if shutil.which("gcc") and os.environ.get(compiled.INTERPRETED) != "1" and os.environ.get("CI"):
        assert compiled.path() is not None, "there is a C compiler: run `make compiled`"
