"""WHO TELLS THE SIDECARS WHAT TO DO: the mesh's configuration, who serves where, and who may call themselves
what.

A change travels one way: api (checked) -> state (stored, then swapped) -> compile -> snapshot -> ads ->
sidecars.

Rules of this room:
- What was acknowledged is on the disk: the store commits before the answer leaves and before memory changes.
- `mesh`, `compile`, `snapshot`, `leases` and the ADS stream's logic are pure: time is an argument, nothing is
  awaited.
- Secrets (the root key, tokens) are files of mode 0600 in a directory of mode 0700; the database holds only
  SHA-256 hashes of tokens; neither shows in a log, a repr or an error.
- Only `server` puts the pieces together; only `api`, `ads` and `server` know grpc.
- control_plane never imports proxy; both know only pillion.v1 and pillion.client.
"""

import os

# grpc reads it when it is imported. Its own lines say less than ours, and anyone can make it write them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
