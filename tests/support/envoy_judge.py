"""The real Envoy as the judge of a configuration."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.envoy import ENVOY


def judged(values: dict[str, Any], directory: Path) -> tuple[bool, str]:
    """Whether Envoy takes a bootstrap, and what it says."""
    file = directory / "boot.json"
    file.write_text(json.dumps(values))
    command = [ENVOY if ENVOY.exists() else "envoy", "--mode", "validate", "-c", file, "--disable-hot-restart"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode == 0, result.stderr[-2000:]
