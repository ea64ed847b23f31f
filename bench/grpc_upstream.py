"""A real gRPC server (grpcio) behind the proxies: `python -m bench.grpc_upstream PORT`. Messages pass as raw bytes.

/bench.Echo/Unary answers with its request (echo.proto), Download sends a stream of large messages, Upload takes one
and answers with how many bytes it was, in ASCII.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any, Final

import grpc

MESSAGE: Final = bytes(64 * 1024)
MESSAGES: Final = 256
"""In a stream."""

THREADS = 16
"""Calls served at once."""


def unary(request: bytes, _context: grpc.ServicerContext) -> bytes:
    return request


def download(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    for _ in range(MESSAGES):
        yield MESSAGE


def upload(requests: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
    return b"%d" % sum(map(len, requests))


_METHODS: Final[dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Download": grpc.unary_stream_rpc_method_handler(download),
    "Upload": grpc.stream_unary_rpc_method_handler(upload),
}


def main(argv: list[str]) -> int:
    """Serve until killed."""
    server = grpc.server(futures.ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", _METHODS),))
    server.add_insecure_port(f"127.0.0.1:{argv[0]}")
    server.start()
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
