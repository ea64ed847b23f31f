"""WHAT WENT WRONG: one table of every reply that the sidecar makes by itself.

A row says where the failure lies, which response flag the access log shows (Envoy's letters), what HTTP client and
gRPC client are told, and what to do about it. Nothing else in the sidecar invents a status or a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["downstream", "upstream", "local"]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row: `flag` as in envoy.data.accesslog.v3.ResponseFlags; `grpc` as in google.rpc.Code.

    `unsent`: no byte of the request reached the upstream, so that sending it elsewhere repeats nothing."""

    name: str
    source: Source
    flag: str
    status: int
    grpc: int
    text: str
    unsent: bool = False


NO_ROUTE = ErrorKind(
    "no_route",
    "local",
    "NR",
    404,
    12,
    "no route matches this host and path; /config_dump on the sidecar's admin port has all routes",
    True,
)
NO_HEALTHY_UPSTREAM = ErrorKind(
    "no_healthy_upstream",
    "upstream",
    "UH",
    503,
    14,
    "no healthy endpoint in the cluster; /clusters on the sidecar's admin port has them all",
    True,
)
CONNECT_FAILURE = ErrorKind(
    "connect_failure", "upstream", "UF", 503, 14, "could not connect to the upstream; is it running?", True
)
CONNECTION_TERMINATED = ErrorKind(
    "connection_terminated",
    "upstream",
    "UC",
    503,
    14,
    "the upstream closed the connection before it answered",
)
REFUSED = ErrorKind(
    "refused", "upstream", "UR", 503, 14, "the upstream refused the request without looking at it", True
)
UPSTREAM_RESET = ErrorKind("upstream_reset", "upstream", "UR", 503, 14, "the upstream reset the stream")
OVERFLOW = ErrorKind(
    "overflow",
    "local",
    "UO",
    503,
    14,
    "too many requests or connections for this cluster; see its circuit_breakers",
    True,
)
UPSTREAM_TIMEOUT = ErrorKind(
    "upstream_timeout", "upstream", "UT", 504, 4, "the upstream did not answer within the route's timeout"
)
UPSTREAM_PROTOCOL_ERROR = ErrorKind(
    "upstream_protocol_error", "upstream", "UPE", 502, 14, "the upstream's answer is not valid HTTP"
)
STREAM_IDLE = ErrorKind("stream_idle", "downstream", "SI", 408, 4, "the request stood still for too long")
RESPONSE_IDLE = ErrorKind(
    "response_idle", "upstream", "SI", 504, 4, "nothing came from the upstream within the stream idle timeout"
)
REQUEST_TIMEOUT = ErrorKind(
    "request_timeout", "downstream", "DT", 408, 4, "the request did not arrive whole within request_timeout"
)
STREAM_TOO_LONG = ErrorKind(
    "stream_too_long", "local", "DT", 504, 4, "request and answer took longer than max_stream_duration"
)
BAD_REQUEST = ErrorKind("bad_request", "downstream", "DPE", 400, 13, "the request is not valid HTTP")
PATH_REFUSED = ErrorKind("path_refused", "downstream", "DPE", 400, 13, "the path of the request is not allowed")
HTTP10_REFUSED = ErrorKind(
    "low_version", "downstream", "DPE", 426, 13, "HTTP/1.0 is off (http_protocol_options.accept_http_10)"
)
ABSOLUTE_URL_REFUSED = ErrorKind(
    "absolute_url_refused", "downstream", "NR", 404, 12, "absolute request targets are off (allow_absolute_url)"
)
GRPC_WEB_NOT_BASE64 = ErrorKind(
    "grpc_web_not_base64", "downstream", "DPE", 400, 13, "the body of the gRPC-Web request is not valid base64"
)
HEADERS_TOO_LARGE = ErrorKind(
    "headers_too_large", "downstream", "DPE", 431, 13, "the request's header section is too large"
)
URI_TOO_LONG = ErrorKind("uri_too_long", "downstream", "DPE", 414, 13, "the request's target is too long")
EXPECTATION_FAILED = ErrorKind(
    "expectation_failed", "downstream", "DPE", 417, 13, "no expectation but 100-continue can be met"
)
REQUEST_HEADERS_TIMEOUT = ErrorKind(
    "request_headers_timeout",
    "downstream",
    "DPE",
    408,
    4,
    "the request's header section did not arrive in time",
)
CONNECT_NOT_ALLOWED = ErrorKind("connect_not_allowed", "downstream", "NR", 404, 12, "no route allows CONNECT", True)
UPGRADE_NOT_ALLOWED = ErrorKind(
    "upgrade_not_allowed", "local", "NR", 403, 7, "no route allows this protocol (upgrade_configs)", True
)
DOWNSTREAM_GONE = ErrorKind("downstream_gone", "downstream", "DC", 0, 1, "the client closed the connection")
UNSENT_FLAGS = frozenset(
    kind.flag for kind in (NO_ROUTE, NO_HEALTHY_UPSTREAM, CONNECT_FAILURE, REFUSED, OVERFLOW, CONNECT_NOT_ALLOWED)
)
"""The flags that another sidecar may give for a request that did not reach its app."""
RETRY_LIMIT = "URX"
"""The flag added when every retry that the policy allows was used up."""


def text(kind: ErrorKind, detail: str = "") -> str:
    """What a local reply says: the row's text, and what is known of this very case."""
    return f"pillion: {kind.text}{f' ({detail})' if detail else ''}"


def body(kind: ErrorKind, detail: str = "") -> bytes:
    """The same as the body of an HTTP response."""
    return f"{text(kind, detail)}\n".encode()
