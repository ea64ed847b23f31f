"""The `pillion` command as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PILLION = [sys.executable, "-c", "from pillion.cli import main; main()"]
"""The console script, whether or not the distribution is installed."""


def pillion(
    *arguments: str | Path,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> subprocess.CompletedProcess[str]:
    """Run `pillion ARGUMENTS` to its end; output is captured (pytest shows it when the test fails).

    HOME is not the user's: a test must not find or change a mesh of theirs.
    """
    done = subprocess.run(
        [*PILLION, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={
            **os.environ,
            "PILLION_HOME": "/nonexistent/pillion",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            **(env or {}),
        },
        check=False,
    )
    print(f"$ pillion {' '.join(map(str, arguments))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done
