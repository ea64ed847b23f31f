"""WHO BRINGS NEWS: the parent process. It learns what should be, tells the workers, and tells the world about them.

    static file ┐                                            ┌ worker 1
    xDS ────────┼─▶ state (one consistent snapshot) ─▶ supervisor ─ worker 2
    identity ───┤                                            └ ...
    DNS ────────┘      admin, metrics ◀── counters, applied ──┘

Rules of this room:
- The agent is never in the path of a request: it may stall for a while, and nobody notices.
- It owns what must outlive a worker: listening sockets, keys, counters, the last good configuration.
- Logic over time is sans-IO (`now` is an argument) and apart from the thin part that does I/O.
- grpc, protobuf, cryptography, aiohttp and prometheus_client are imported when first needed, never before:
  a sidecar from a file stays small.
- No private key, join token or session token is ever logged, dumped or written in clear.
"""
