"""wrk, h2load and k6 as this benchmark uses them: the command, and what is taken from their reports."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, NotSent, RequestsFailed

_HERE = Path(__file__).parent
_REQUESTS = re.compile(r"(\d+) requests in")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.+)")
_H2LOAD = re.compile(
    r"^requests: .*, (?P<done>\d+) done, (?P<succeeded>\d+) succeeded, (?P<failed>\d+) failed, "
    r"(?P<errored>\d+) errored, (?P<timeout>\d+) timeout$.*^traffic: .*\((?P<data>\d+)\) data$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds. `requests` is how many the percentiles are of."""

    p50: float
    p99: float
    requests: int


def k6(path: str, port: int, rate: int, warm: float, seconds: float, directory: Path) -> Latency:
    """`rate` requests per second to 127.0.0.1:`port` for `warm` + `seconds`. Raises RequestsFailed."""
    target = {"URL": f"http://127.0.0.1:{port}/"}
    return k6_summary(_k6(path, "open_loop.js", target, rate, warm, seconds, directory), "http_req")


def k6_grpc(path: str, port: int, connections: int, rate: int, warm: float, seconds: float, directory: Path) -> Latency:
    """The same with unary gRPC calls to bench.grpc_upstream, on at least so many connections. Raises RequestsFailed."""
    target = {"TARGET": f"127.0.0.1:{port}", "PROTO": _HERE, "CONNECTIONS": connections}
    return k6_summary(_k6(path, "grpc_open_loop.js", target, rate, warm, seconds, directory), "grpc_req")


def _k6(
    path: str, script: str, target: Mapping[str, object], rate: int, warm: float, seconds: float, directory: Path
) -> dict[str, Any]:
    out = directory / "k6.json"
    out.unlink(missing_ok=True)
    given = {**target, "RATE": rate, "WARM": warm, "SECONDS": seconds, "OUT": out}
    command = [path, "run", "--no-usage-report", "--quiet", "--no-color", "--address", ""]
    for name, value in given.items():
        command += ["--env", f"{name}={value}"]
    done = subprocess.run(
        [*command, str(_HERE / script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=warm + seconds + 60,
        check=False,
    )
    if done.returncode != 0 or not out.exists():
        raise BenchError(f"k6 ended with status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def k6_summary(summary: Mapping[str, Any], kind: str) -> Latency:
    """From what k6 hands to handleSummary. `kind`: how its metrics' names begin, http_req or grpc_req.

    Raises RequestsFailed when a request failed or could not be sent in time.
    """
    metrics = summary["metrics"]
    failed = metrics[f"{kind}_failed"]["values"]["passes"]  # a Rate's passes: how often it was true, so failures
    if failed:
        total = failed + metrics[f"{kind}_failed"]["values"]["fails"]
        raise RequestsFailed(f"{failed} of {total} requests failed")
    dropped = metrics.get("dropped_iterations", {"values": {"count": 0}})["values"]["count"]
    if dropped:
        raise NotSent(f"{dropped} requests could not be sent when they were due: too slow for this rate")
    values = metrics[kind + "_duration{phase:measured}"]["values"]
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


@dataclass(frozen=True, slots=True)
class Calls:
    """Unary gRPC calls as h2load makes them: `message` (framed) to `path`, on `connections` × `streams`."""

    path: str
    message: Path
    answer: int
    connections: int = 4
    streams: int = 8


def h2load(program: str, port: int, calls: Calls, seconds: float) -> int:
    """How many calls 127.0.0.1:`port` answered within `seconds`. Raises RequestsFailed."""
    command = [program, f"-D{max(1, round(seconds * 1000))}ms", f"-c{calls.connections}", f"-m{calls.streams}"]
    command += ["-d", str(calls.message)]
    for header in ("content-type: application/grpc", "te: trailers", "grpc-timeout: 1S"):
        command += ["-H", header]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{calls.path}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"h2load ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return h2load_calls(done.stdout, calls.answer)


def h2load_calls(report: str, answer: int) -> int:
    """From h2load's report. Raises RequestsFailed when a call failed, or did not bring `answer` bytes: to gRPC a proxy
    says with status 200, and a trailer that h2load does not look at, that it failed.
    """
    found = _H2LOAD.search(report)
    if found is None or not int(found["done"]):
        raise RequestsFailed(f"h2load made no calls: {report.strip()[-200:]}")
    done, data = int(found["done"]), int(found["data"])
    if int(found["succeeded"]) != done or any(int(found[each]) for each in ("failed", "errored", "timeout")):
        raise RequestsFailed(found[0].splitlines()[0])
    if data < done * answer:
        raise RequestsFailed(f"{done} calls brought {data} bytes, not {answer} each: some are errors")
    return done
