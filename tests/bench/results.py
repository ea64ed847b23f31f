"""A result as a run would have found it, with known figures."""

from __future__ import annotations

from bench.result import CONTROL, DIRECT, ENVOY, PILLION, Result, Scenario, Subject

FACTS = {
    "at": "2026-01-02T03:04:05Z",
    "cpu": "A CPU",
    "cpus": 2,
    "kernel": "6.1",
    "python": "3.11.7",
    "pillion": "0.1.0",
    "tools": {"envoy": "1.40.0", "nginx": "1.22.1"},
    "load": 0.5,
}
OPTIONS = {"pairs": 3, "seconds": 1.0, "quick": False, "cores": "Proxies run on core 0."}


def result() -> Result:
    """One hop, three turns, direct, Pillion twice and Envoy."""
    micro = 1e-6
    direct = Subject(DIRECT, "direct", 0, {"p50": [100 * micro] * 3, "p99": [300 * micro] * 3})
    pillion = Subject(
        PILLION,
        "Pillion",
        1,
        {
            "p50": [160 * micro, 150 * micro, 170 * micro],
            "p99": [700 * micro] * 3,
            "added_p50": [60 * micro, 50 * micro, 70 * micro],
            "added_p99": [400 * micro] * 3,
            "cpu": [40 * micro, 45 * micro, 50 * micro],
            "memory_alone": [54_321_000.0],
        },
        {"loop": "uvloop", "compiled": "no"},
    )
    envoy = Subject(
        ENVOY,
        "Envoy",
        1,
        {
            "p50": [200 * micro] * 3,
            "p99": [1100 * micro] * 3,
            "added_p50": [100 * micro] * 3,
            "added_p99": [800 * micro] * 3,
            "cpu": [80 * micro, 75 * micro, 125 * micro],
            "memory_alone": [70_000_000.0],
        },
    )
    again = Subject(CONTROL, "Pillion again", 1, {"cpu": [44 * micro, 45 * micro, 45 * micro]})
    hop = Scenario("h1-hop", "one plaintext hop", "how it was measured", [direct, pillion, envoy, again])
    return Result(FACTS, OPTIONS, [hop], ["wrk is not installed"], [])
