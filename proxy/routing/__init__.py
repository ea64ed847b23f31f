"""WHICH WAY: matchers and the route table. The same matcher serves requests and, later, `pillion explain`.

Rules of this room:
- A table is compiled once per snapshot and never changes; a request keeps the one it began with.
- Order is Envoy's: domains exact, longest suffix, longest prefix, "*"; then the first route that matches.
"""
