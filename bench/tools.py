"""wrk and k6 as this benchmark uses them: the command, and what is taken from their reports."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, NotSent, RequestsFailed

_SCRIPT = Path(__file__).with_name("open_loop.js")
_REQUESTS = re.compile(r"(\d+) requests in")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.+)")


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds. `requests` is how many the percentiles are of."""

    p50: float
    p99: float
    requests: int


def k6(path: str, port: int, rate: int, warm: float, seconds: float, directory: Path) -> Latency:
    """`rate` requests per second to 127.0.0.1:`port` for `warm` + `seconds`. Raises RequestsFailed."""
    out = directory / "k6.json"
    out.unlink(missing_ok=True)
    given = {"URL": f"http://127.0.0.1:{port}/", "RATE": rate, "WARM": warm, "SECONDS": seconds, "OUT": out}
    command = [path, "run", "--no-usage-report", "--quiet", "--no-color", "--address", ""]
    for name, value in given.items():
        command += ["--env", f"{name}={value}"]
    done = subprocess.run(
        [*command, str(_SCRIPT)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=warm + seconds + 60,
        check=False,
    )
    if done.returncode != 0 or not out.exists():
        raise BenchError(f"k6 ended with status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return k6_summary(json.loads(out.read_text(encoding="utf-8")))


def k6_summary(summary: Mapping[str, Any]) -> Latency:
    """From what k6 hands to handleSummary. Raises RequestsFailed when a request failed or could not be sent in time."""
    metrics = summary["metrics"]
    failed = metrics["http_req_failed"]["values"]["passes"]  # a Rate's passes: how often it was true, so failures
    if failed:
        total = failed + metrics["http_req_failed"]["values"]["fails"]
        raise RequestsFailed(f"{failed} of {total} requests failed")
    dropped = metrics.get("dropped_iterations", {"values": {"count": 0}})["values"]["count"]
    if dropped:
        raise NotSent(f"{dropped} requests could not be sent when they were due: too slow for this rate")
    values = metrics["http_req_duration{phase:measured}"]["values"]
    if not values["count"]:
        raise RequestsFailed("no request was measured")
    return Latency(values["p(50)"] / 1000, values["p(99)"] / 1000, values["count"])


def wrk(path: str, port: int, connections: int, seconds: float) -> int:
    """How many requests 127.0.0.1:`port` answered within `seconds` (whole, at least 1). Raises RequestsFailed."""
    command = [path, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", f"http://127.0.0.1:{port}/"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"wrk ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return wrk_requests(done.stdout)


def wrk_requests(report: str) -> int:
    """From wrk's report. Raises RequestsFailed when an answer was not 2xx or 3xx, or a connection failed."""
    bad = _BAD.search(report)
    if bad:
        raise RequestsFailed(bad[0])
    found = _REQUESTS.search(report)
    if found is None or not int(found[1]):
        raise RequestsFailed("wrk made no requests")
    return int(found[1])
