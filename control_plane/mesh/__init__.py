"""WHAT PEOPLE ASK FOR: the mesh configuration in YAML, checked, as frozen values that know their place in it.

Rules of this room:
- Words and semantics are Gateway API's where it has them (matches, backendRefs, timeouts, durations).
- `parse` takes any text and returns documents or raises ConfigError; nothing else ever comes out of it.
- Every problem names source, line and column (1-based), what is wrong, and what to write instead.
- Bounds come first: size, depth, aliases and nodes are checked while reading, before anything is built.
- Nothing here knows xDS: control_plane.compile does that.
"""

from control_plane.mesh.duration import format_duration, parse_duration
from control_plane.mesh.errors import ConfigError, Problem
from control_plane.mesh.parse import ServiceDocument, parse, validate
from control_plane.mesh.schema import (
    BackendRef,
    HeaderMatch,
    PathMatch,
    Protocol,
    QueryParamMatch,
    Route,
    RouteMatch,
    Service,
    Timeouts,
    Version,
)

__all__ = [
    "BackendRef",
    "ConfigError",
    "HeaderMatch",
    "PathMatch",
    "Problem",
    "Protocol",
    "QueryParamMatch",
    "Route",
    "RouteMatch",
    "Service",
    "ServiceDocument",
    "Timeouts",
    "Version",
    "format_duration",
    "parse",
    "parse_duration",
    "validate",
]
