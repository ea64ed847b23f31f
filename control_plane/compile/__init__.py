"""HOW WHAT PEOPLE ASK FOR IS SAID IN XDS: services and instances in, envoy.* messages out.

Rules of this room:
- Pure functions, one file a type; the same input gives the same bytes on every replica.
- Only fields that the sidecar's decoders know; a real Envoy accepts the same output (a test runs it).
- A version or service without instances is an empty load assignment, never an error.
- `compiler` remembers what was compiled from what, so a change costs what it touches and no more.
"""

from control_plane.compile.client import Client, ClientError
from control_plane.compile.compiler import Compiler

__all__ = ["Client", "ClientError", "Compiler"]
