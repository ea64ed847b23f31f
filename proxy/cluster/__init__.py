"""WHO CAN SERVE: clusters and their endpoints as a worker sees them, and how a new snapshot changes them.

Rules of this room:
- An endpoint that stays keeps its object: its connections, its load and its health survive every update.
- The picker is rebuilt when the set of hosts in service changes, and swapped in one assignment.
- No sockets here: `idle` and `transport` are the worker's to fill.
"""
