"""What a listener and a cluster need per request, computed once per snapshot.

A ListenerState never changes; the slot that connections hold on to swaps it in one assignment, and a request keeps
the state that it began with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from proxy.cluster.state import ClusterState
from proxy.config.fault import FAULT, Fault
from proxy.config.filters import GRPC_WEB
from proxy.config.listener import Listener
from proxy.config.route import RouteConfiguration
from proxy.filters import FILTERS, Setting
from proxy.http import head_policy
from proxy.routing.table import Defaults, RouteTable
from proxy.telemetry.counters import Counters
from proxy.telemetry.header_value import compile_header_value
from proxy.worker.faults import Faults
from proxy.worker.log_file import LogFiles
from proxy.worker.peer import Peer
from proxy.worker.pool import Pool
from proxy.worker.tls import Context

_second = 0
_date: Any = (b"date", b"")
_date_line = b""


def date_line() -> bytes:
    """The Date field (RFC 9110 §6.6.1) as a line, computed once a second."""
    date_field()
    return _date_line


def date_field() -> Any:
    """The same as a pair."""
    global _second, _date, _date_line
    now = int(time.time())
    if _second != now:
        _second = now
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode()
        _date = (b"date", date)
        _date_line = b"date: %b\r\n" % date
    return _date


class Transport:
    """How a cluster's connections are secured. `verified`: the peer's certificate is checked."""

    __slots__ = ("context", "sni", "verified", "verify")

    def __init__(self, context: Context, sni: str, verify: Callable[[Peer], None]) -> None:
        self.context = context
        # Python needs some name; with check_hostname off it is used for SNI only, and an address sends none.
        self.sni = sni or "127.0.0.1"
        self.verify = verify
        self.verified = context.requires


class ListenerState:
    """One listener, compiled."""

    __slots__ = (
        "client_cert",
        "config",
        "connections_total",
        "context",
        "counters",
        "date_field",
        "date_line",
        "faults",
        "filters",
        "handshake_timeout",
        "handshakes",
        "head_timeout",
        "http2_connections",
        "idle_timeout",
        "inbound",
        "keep_request_id",
        "latency",
        "loggers",
        "make_request_id",
        "max_requests_per_connection",
        "name",
        "own_uri",
        "pool",
        "request_policy",
        "requests",
        "requires_peer",
        "response_policy",
        "routes",
        "server_fields",
        "server_line",
        "tracing",
        "upgrades",
        "verify",
        "xff_index",
    )

    def __init__(
        self,
        listener: Listener,
        routes: RouteConfiguration,
        clusters: dict[str, ClusterState],
        context: Context | None,
        verify: Callable[[Peer], None],
        own_uri: str,
        counters: Counters,
        pool: Pool,
        files: LogFiles,
        before: ListenerState | None = None,
        workers: int = 1,
    ) -> None:
        """`before`: the same listener's until now, which hands on what must outlive a configuration; `workers`: how
        many processes share the listener's requests."""
        config = listener.filter_chain.http
        assert config is not None
        name = listener.name
        self.name = name
        self.config = config
        self.context = context
        self.verify = verify
        self.requires_peer = context is not None and context.requires
        self.own_uri = own_uri
        self.handshake_timeout = listener.filter_chain.transport_socket_connect_timeout or 15.0
        self.idle_timeout = config.idle_timeout
        self.inbound = listener.traffic_direction == "INBOUND"
        defaults = Defaults(
            config.stream_idle_timeout,
            config.max_stream_duration,
            compile_header_value,
            any(entry.type_url == GRPC_WEB for entry in config.http_filters),
        )
        self.routes: RouteTable[ClusterState] = RouteTable(routes, clusters.__getitem__, defaults)
        self.filters = tuple(
            FILTERS[entry.type_url](entry.config) for entry in config.http_filters if entry.type_url != FAULT
        )
        setting = Setting(routes, counters, workers)
        for http_filter in self.filters:
            same = [one for one in (before.filters if before else ()) if type(one) is type(http_filter)]
            http_filter.begin(setting, same[0] if same else None)
        self.faults: Faults | None = None
        for entry in config.http_filters:
            if isinstance(entry.config, Fault):
                self.faults = Faults(name, entry.config, routes, counters, before.faults if before else None)
        self.tracing = config.tracing
        self.upgrades = frozenset(name.encode() for name in config.upgrades)
        self.request_policy = head_policy.compile_request_policy(config, listener.address.port)
        self.response_policy = head_policy.compile_response_policy(config)
        self.xff_index = head_policy.xff_index(config)
        self.max_requests_per_connection = config.max_requests_per_connection
        # Envoy's stream idle timeout runs from a head's first byte, so a head is bounded by it, too.
        timeouts = (config.request_headers_timeout or config.stream_idle_timeout, config.request_timeout)
        self.head_timeout = min([timeout for timeout in timeouts if timeout], default=0.0)
        self.make_request_id = config.generate_request_id
        # A request id is kept when it comes from the mesh (a verified peer) or from the app beside us; an edge
        # listener (use_remote_address) replaces it unless told otherwise, as Envoy does.
        self.keep_request_id = config.preserve_external_request_id or not config.use_remote_address
        self.server_fields = head_policy.response_fields(config)
        self.server_line = b"".join([b"%b: %b\r\n" % pair for pair in self.server_fields])
        self.date_line = date_line
        self.date_field = date_field
        self.client_cert = _client_cert(config.forward_client_cert_details)
        self.counters = counters
        self.pool = pool
        self.requests = counters.by_class("downstream_rq_total", listener=name)
        self.latency = counters.histogram("downstream_rq_seconds", listener=name)
        self.connections_total = counters.slot("downstream_cx_total", listener=name)
        self.http2_connections = counters.slot("downstream_cx_http2_total", listener=name)
        self.handshakes = counters.slot("downstream_tls_handshake_total", listener=name)
        self.loggers = [files.logger(log) for log in config.access_logs]


def _client_cert(details: str) -> Callable[[bytes | None, bytes | None], bytes | None]:
    """(value received, element for our own peer) → value sent (HttpConnectionManager.ForwardClientCertDetails).

    Only a client that showed a certificate may speak of other clients' certificates."""
    if details == "SANITIZE":
        return lambda received, own: None
    if details == "FORWARD_ONLY":
        return lambda received, own: received if own is not None else None
    if details == "APPEND_FORWARD":
        return lambda received, own: own if received is None or own is None else received + b"," + own
    if details == "SANITIZE_SET":
        return lambda received, own: own
    return lambda received, own: received  # ALWAYS_FORWARD_ONLY
