"""What is taken from the reports of k6, wrk and h2load."""

from typing import Any

import pytest

from bench import tools
from bench.errors import NotSent, RequestsFailed


def summary(*, failed: int = 0, dropped: int | None = None, count: int = 1000) -> dict[str, Any]:
    """As k6 1.1 hands it to handleSummary; times in milliseconds."""
    metrics: dict[str, Any] = {
        "http_req_failed": {"type": "rate", "values": {"rate": 0, "passes": failed, "fails": 1250 - failed}},
        "http_req_duration": {"type": "trend", "values": {"p(50)": 9.0, "p(99)": 9.0, "max": 9.0, "count": 1250}},
        "http_req_duration{phase:measured}": {
            "type": "trend",
            "values": {"p(50)": 0.25, "p(99)": 1.5, "max": 3.0, "count": count},
        },
    }
    if dropped is not None:
        metrics["dropped_iterations"] = {"type": "counter", "values": {"count": dropped, "rate": 1.0}}
    return {"metrics": metrics}


@pytest.mark.parametrize("dropped", [None, 0])
def test_k6_percentiles_are_of_the_measured_phase_in_seconds(dropped: int | None) -> None:
    found = tools.k6_summary(summary(dropped=dropped), "http_req")
    assert (found.p50, found.p99, found.requests) == (pytest.approx(0.00025), pytest.approx(0.0015), 1000)


def test_k6_metrics_of_grpc_have_other_names() -> None:
    metrics = {name.replace("http_req", "grpc_req"): value for name, value in summary()["metrics"].items()}
    assert tools.k6_summary({"metrics": metrics}, "grpc_req") == tools.k6_summary(summary(), "http_req")


def test_k6_failures_fail() -> None:
    with pytest.raises(RequestsFailed, match="3 of 1250 requests failed"):
        tools.k6_summary(summary(failed=3), "http_req")


def test_k6_requests_that_were_not_sent_in_time_fail() -> None:
    with pytest.raises(NotSent, match="7 requests"):
        tools.k6_summary(summary(dropped=7), "http_req")


def test_k6_without_a_measured_request_fails() -> None:
    with pytest.raises(RequestsFailed):
        tools.k6_summary(summary(count=0), "http_req")


WRK = """\
Running 2s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.06ms  290.80us   9.13ms   96.90%
    Req/Sec    30.38k     1.32k   31.55k    90.00%
  60451 requests in 2.00s, 67.68MB read
Requests/sec:  30219.06
Transfer/sec:     33.83MB
"""


def test_wrk_requests() -> None:
    assert tools.wrk_requests(WRK) == 60451


@pytest.mark.parametrize(
    "line", ["  Socket errors: connect 0, read 3, write 0, timeout 0", "  Non-2xx or 3xx responses: 12"]
)
def test_wrk_failures_fail(line: str) -> None:
    with pytest.raises(RequestsFailed, match=line.strip()[:12]):
        tools.wrk_requests(WRK.replace("Requests/sec", f"{line}\nRequests/sec"))


def test_wrk_without_requests_fails() -> None:
    with pytest.raises(RequestsFailed):
        tools.wrk_requests("  0 requests in 2.00s, 0.00B read\n")


H2LOAD = """\
Stopped all clients for thread #0

finished in 1.00s, 17888.00 req/s, 2.41MB/s
requests: 17888 total, 17920 started, 17888 done, 17888 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 17888 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.41MB (2523060) total, 227.67KB (233132) headers (space savings 93.91%), 1.71MB (1788800) data
                     min         max         mean         sd        +/- sd
time for request:     1.16ms      9.08ms      1.71ms       937us    94.47%
"""


def test_h2load_calls() -> None:
    assert tools.h2load_calls(H2LOAD, 100) == 17888


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("17888 succeeded, 0 failed", "17885 succeeded, 3 failed"),
        ("0 errored", "1 errored"),
        ("0 timeout", "2 timeout"),
    ],
)
def test_h2load_failures_fail(good: str, bad: str) -> None:
    with pytest.raises(RequestsFailed, match=bad):
        tools.h2load_calls(H2LOAD.replace(good, bad), 100)


def test_calls_that_fail_with_status_200_fail() -> None:
    """As gRPC errors that a proxy makes do: trailers and no message."""
    with pytest.raises(RequestsFailed, match="17888 calls brought 1788700 bytes, not 100 each"):
        tools.h2load_calls(H2LOAD.replace("(1788800)", "(1788700)"), 100)


@pytest.mark.parametrize("report", ["", H2LOAD.replace("17888 done", "0 done")])
def test_h2load_without_calls_fails(report: str) -> None:
    with pytest.raises(RequestsFailed, match="no calls"):
        tools.h2load_calls(report, 100)
