"""The scenarios, one row each. A new one is a file here and its row."""

from __future__ import annotations

from typing import Final

from bench.load import Http1
from bench.scenarios import grpc_stream, grpc_unary, handshakes, memory, tcp
from bench.scenarios.base import Definition
from bench.scenarios.direct import Direct
from bench.scenarios.http import Proxied
from bench.shapes import HOP, PAIR, hop, pair

SCENARIOS: Final[dict[str, Definition]] = {
    definition.name: definition
    for definition in (
        Direct("direct", "no proxy: what the tools themselves can do", Http1),
        Proxied("h1-hop", "HTTP/1.1, one plaintext hop", HOP, Http1),
        Proxied("h1-pair", "HTTP/1.1, a pair of sidecars over mutual TLS", PAIR, Http1),
        grpc_unary.Unary("grpc-hop", "unary gRPC, one plaintext hop", hop("h2", http2=True)),
        grpc_unary.Unary("grpc-pair", "unary gRPC, a pair of sidecars over mutual TLS", pair("h2", http2=True)),
        grpc_stream.Streaming("grpc-stream", "gRPC streams, one plaintext hop", hop("grpc", http2=True)),
        grpc_stream.Streaming(
            "grpc-stream-pair", "gRPC streams, a pair of sidecars over mutual TLS", pair("grpc", http2=True)
        ),
        grpc_unary.OpenLoop("grpc-latency", "unary gRPC, a pair of sidecars over mutual TLS", pair("grpc", http2=True)),
        tcp.Passthrough(),
        handshakes.Handshakes(),
        memory.Idle(10),
        memory.Idle(1000),
    )
}
