"""One sidecar for all tests here; what a test opens is closed behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.h2 import stage


@pytest.fixture(scope="package")
def whole_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stage.Stage]:
    """The sidecar and all that lies behind it."""
    with stage.running(tmp_path_factory.mktemp("h2")) as found:
        yield found


@pytest.fixture
def play(whole_stage: stage.Stage) -> Iterator[stage.Play]:
    """What a test uses of it."""
    found = stage.Play(whole_stage)
    whole_stage.http1.clear()
    whole_stage.http2.clear()
    yield found
    found.close()
