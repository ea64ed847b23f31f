"""WHO HAS BEEN TOLD WHAT: the aggregated discovery service (xDS v3), state of the world.

Rules of this room:
- `stream` is the protocol of one client, sans-IO: requests and snapshots in, responses out.
- `servicer` moves its bytes over grpc.aio: it authenticates, coalesces changes and wakes streams.
- Each type has at most one unanswered response on a stream; of what changes meanwhile, the newest follows.
- Make before break: nothing is named in a route before the client has it, and nothing is taken away that a
  route of the client may still name.
"""
