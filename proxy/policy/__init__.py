"""WHAT TO DECIDE: load balancing, retries, outlier detection. Pure: `now` and `rng` are arguments.

Rules of this room:
- No clock, no global random state, no I/O: every decision is a function of its arguments.
- Each policy names the Envoy field that configures it.
"""
