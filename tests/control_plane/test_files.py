"""Private files and their directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from control_plane.errors import StartError
from control_plane.files import prepare_directory, read_private, write_new


def test_the_directory_is_private(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    prepare_directory(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    given = tmp_path / "given"
    given.mkdir(mode=0o755)
    prepare_directory(given)
    assert stat.S_IMODE(given.stat().st_mode) == 0o700
    assert list(given.iterdir()) == []
    given.chmod(0o755)
    (given / "file").touch()
    with pytest.raises(StartError, match=f"chmod 700 {given}"):
        prepare_directory(given)
    for bad in (Path("/dev/null"), Path("/dev/null/x"), Path("/proc/pillion")):
        with pytest.raises(StartError, match=str(bad)):
            prepare_directory(bad)


def test_a_private_file_is_whole_and_never_overwritten_by_chance(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_private(path) is None
    write_new(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(StartError, match="File exists"):
        write_new(path, b"two")
    assert read_private(path) == b"one"
    write_new(path, b"three", replace=True)
    assert read_private(path) == b"three"
    assert list(tmp_path.iterdir()) == [path]
