"""WHAT SHOULD BE: the sidecar's configuration as frozen values, whatever brought them (file, xDS, cache).

Rules of this room:
- Every class is a frozen, slotted dataclass of plain values, so it can be compared, diffed, pickled and hashed.
- Names follow Envoy v3; each class names the proto message that it is decoded from.
- Durations are float seconds. Addresses are (host, port). Collections are tuples.
- Nothing here does I/O, holds a private key, or knows how it will be executed: the worker compiles it.
"""
