"""What Pillion is to reach: for a figure of a scenario, the ratio of Pillion to Envoy that it must not miss."""

from __future__ import annotations

from typing import Final

from bench.figures import FIGURES

BARS: Final = {
    ("h1-hop", "cpu_saturated"): 0.60,
    ("h1-pair", "cpu_saturated"): 0.70,
    ("h1-pair", "added_p50"): 0.60,
    ("h1-pair", "added_p99"): 0.80,
    ("tcp", "bytes_per_cpu_second"): 1.0,
    ("handshakes", "handshakes_per_cpu_second"): 0.8,
    ("idle-memory-10", "pss"): 1.3,
    ("idle-memory-1000", "pss"): 0.8,
    ("grpc-hop", "cpu_saturated"): 0.80,
    ("grpc-pair", "cpu_saturated"): 0.85,
    ("grpc-stream", "bytes_per_cpu_second"): 0.7,
    ("grpc-latency", "added_p50"): 0.8,
    ("grpc-latency", "added_p99"): 1.0,
}
"""(scenario, figure) → ratio: at most that, or at least where more is better."""


def shown(scenario: str, figure: str) -> str:
    """`≤ 0.80`, or nothing where there is no bar."""
    bar = BARS.get((scenario, figure))
    if bar is None:
        return ""
    return f"{'≥' if FIGURES[figure].higher_is_better else '≤'} {bar:.2f}"
