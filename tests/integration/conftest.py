"""Meshes of real processes. A module's `mesh` is shared by its tests, so each leaves it as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Harness, harness


@pytest.fixture(scope="module")
def bare_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A control plane and nothing else."""
    with harness(tmp_path_factory.mktemp("mesh")) as mesh:
        mesh.up_control_plane()
        yield mesh


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Harness]:
    """A Harness for one test, with nothing started."""
    with harness(tmp_path) as mesh:
        yield mesh
