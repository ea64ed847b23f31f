"""WHAT DOES IT LOOK LIKE WHEN IT RUNS: `pillion demo`, a whole mesh of real processes on one machine.

Rules of this room:
- It uses the mesh only as anybody could: it starts `python -m control_plane` and `python -m proxy`, calls the
  pillion.v1 API, reads the admin ports. It imports neither proxy nor control_plane.
- Every figure that it shows comes from a sidecar's own metrics or from a request that it sent itself.
- Whatever it starts ends with it, even when it is killed (see processes.py); everything listens on 127.0.0.1
  only, except the sidecars' inbound listeners, which demand a certificate of the mesh.
"""
