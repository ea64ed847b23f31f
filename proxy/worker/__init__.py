"""WHO MOVES BYTES: the process that serves requests. uvloop and aiofastnet; nothing heavier.

Rules of this room:
- Protocol callbacks only: no Task, Future or Event per request on the common path; one write per turn.
- Whatever can be computed per snapshot is (tables.py); a request pins the tables that it began with.
- A worker never resolves a name, reads a certificate file or talks to the control plane: the agent does.
- It imports none of grpc, google.protobuf, aiohttp, prometheus_client, opentelemetry, cryptography.
"""
