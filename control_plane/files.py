"""Private files: how keys and tokens are written (atomically, mode 0600) and what is refused when they are
read.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from control_plane.errors import StartError


def prepare_directory(path: Path) -> None:
    """Make the data directory, or check it: ours, mode 0700, writable. Raises StartError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise StartError(f"{path}: not a directory; choose another with --data-dir")
        if found.st_mode & 0o077:
            if any(path.iterdir()):
                mode = stat.S_IMODE(found.st_mode)
                raise StartError(f"{path}: open to other users (mode {mode:04o}); it will hold keys: chmod 700 {path}")
            path.chmod(0o700)  # an empty directory that was made for us, such as a mounted volume
        probe = path / f".probe-{secrets.token_hex(8)}"
        probe.touch(mode=0o600, exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}; choose a writable directory with --data-dir") from error


def read_private(path: Path) -> bytes | None:
    """The content, or None if there is no such file. Raises StartError if others may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise StartError(f"{path}: readable by other users (mode {mode:04o}); chmod 600 {path}")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error


def write_new(path: Path, content: bytes, replace: bool = False) -> None:
    """Write a file of mode 0600 that appears whole or not at all, and is on the disk on return.

    Without `replace` an existing file is never overwritten. Raises StartError.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
