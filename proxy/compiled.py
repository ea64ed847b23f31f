"""The worker's request path, compiled with mypyc: what belongs to it, where it lies, whether it is of this source.

The interpreted form is the source of truth and does the same, at about twice the CPU. `python -m proxy.compiled` makes
the compiled one beside the environment's libraries, whole: a copy of the package with an extension module next to each
compiled file. The agent starts its workers from there as long as the digest says that it was made from the very source
that the agent runs from; a stale one is never used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parent
DIRECTORY: Final = Path(sys.prefix) / "lib" / "pillion" / sys.implementation.cache_tag
"""Where the compiled form lies: put before all else on a worker's path."""
INTERPRETED: Final = "PILLION_INTERPRETED"
"""Set to 1 in the environment to run the interpreted form all the same."""

_ROOMS: Final = ("http", "policy", "routing", "cluster", "filters", "telemetry", "worker")
_NOT_COMPILED: Final = frozenset(
    ("worker/__main__.py", "worker/channel.py", "worker/runtime.py", "worker/tls.py", "worker/peer.py")
)
"""They run once, or are pickled, or call into ssl for all they do."""
_STAMP: Final = "digest"


def sources(root: Path | None = None) -> list[Path]:
    """Every file that a worker runs from, relative to the package."""
    root = root or SOURCE
    files = [path.relative_to(root) for path in root.rglob("*.py")]
    return sorted(path for path in files if path.parts[0] != "agent")


def modules() -> list[Path]:
    """Those that are compiled."""
    return [
        path
        for path in sources()
        if path.parts[0] in _ROOMS and path.name != "__init__.py" and path.as_posix() not in _NOT_COMPILED
    ]


def digest(root: Path | None = None) -> str:
    """What the source is: changes with any file of it."""
    root = root or SOURCE
    state = hashlib.sha256()
    for path in sources(root):
        state.update(path.as_posix().encode() + b"\0" + (root / path).read_bytes() + b"\0")
    return state.hexdigest()


def path() -> Path | None:
    """The directory to run workers from, or None to run them interpreted."""
    if os.environ.get(INTERPRETED) == "1":
        return None
    try:
        made_from = (DIRECTORY / _STAMP).read_text()
    except OSError:
        return None
    return DIRECTORY if made_from == digest() else None


def build() -> None:
    """Make the compiled form anew. Raises CalledProcessError, with what the compiler said in `output`; OSError."""
    DIRECTORY.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DIRECTORY.parent) as name:
        root = Path(name) / "tree"
        for relative in sources():
            target = root / "proxy" / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(SOURCE / relative, target)
        made_from = digest(root / "proxy")  # of the copy: the source may change meanwhile
        setup = root / "setup.py"
        setup.write_text(_SETUP.format(files=[f"proxy/{relative.as_posix()}" for relative in modules()]))
        subprocess.run(
            [sys.executable, str(setup), "-q", "build_ext", "--inplace"],
            cwd=root,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        shutil.rmtree(root / "build")
        setup.unlink()
        (root / _STAMP).write_text(made_from)
        if DIRECTORY.exists():  # a worker that starts in between finds none, and runs interpreted
            DIRECTORY.rename(Path(name) / "old")
        root.rename(DIRECTORY)


_SETUP: Final = """
from mypyc.build import mypycify
from setuptools import setup

options = ["--ignore-missing-imports", *{files!r}]
setup(name="worker", packages=[], ext_modules=mypycify(options, opt_level="2", debug_level="0"))
"""


def main() -> int:
    """Build unless what is there is of this source. Returns the exit status."""
    if path() is not None:
        return 0
    print("compiling the request path (half a minute, once for each change)", file=sys.stderr)
    try:
        build()
    except subprocess.CalledProcessError as error:
        lines = [line for line in str(error.output).splitlines() if "error" in line.lower() or "No such" in line]
        print("\n".join(lines[-5:]), file=sys.stderr)
        print("no compiled form: workers run interpreted, the same at about twice the CPU.", file=sys.stderr)
        if "gcc" in str(error.output) or "cc'" in str(error.output):
            print("It needs a C compiler and Python's headers (Debian: apt install gcc python3-dev).", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
