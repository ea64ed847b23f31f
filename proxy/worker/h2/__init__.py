"""HTTP/2 connections: many exchanges at once on each, all frames of a turn in one write (link.py, flusher.py).

Rules of this room:
- A stream is a Client or a Carrier, so that an exchange does not see which protocol it is on.
- Whoever adds to a connection's output says so to the flusher; nothing else writes.
- The codec's streams point to ours (`owner`), ours to theirs (`stream`).
"""
