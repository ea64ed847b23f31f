"""WHO SIGNS ON A DEVELOPER'S MACHINE? A small CA that writes X.509-SVIDs to files (`python -m certs`).

Rules of this room:
- For local use, examples and tests only: in a mesh the control plane's CA signs, and no key is on the disk.
- Same shape as in the mesh: ECDSA P-256, one URI SAN spiffe://TRUST_DOMAIN/service/NAME (SPIFFE X509-SVID).
- Keys are written with mode 0600, and never printed. Nothing that this tool writes is ever committed.
"""

from certs.ca import Authority, Identity

__all__ = ["Authority", "Identity"]
