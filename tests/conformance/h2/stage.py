"""One live sidecar, with good upstreams behind it and lanes whose upstream a test plays itself.

The bootstrap is one that the real Envoy takes too: with PILLION_H2_JUDGE=envoy the same tests run against it, which
shows whether a test asks for something that only we would do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pillion.demo.processes import free_ports
from tests.conformance.h2 import apps, frames
from tests.conformance.h2.peer import SECONDS, Client, Peer, Server, open_socket
from tests.support import bootstrap
from tests.support.certificates import Authority, Leaf, client_context
from tests.support.envoy import ENVOY
from tests.support.harness import harness
from tests.support.http import request
from tests.support.wait import wait_until

ENVOY_JUDGES = os.environ.get("PILLION_H2_JUDGE") == "envoy"
LANES = 80
MAX_STREAMS = 20
"""What the sidecar lets a client have open."""

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PEER = "spiffe://test/service/peer"


def _cluster(name: str, port: int, http2: bool) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": bootstrap.address(port)}}]}]
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }
    if http2:
        options = {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        cluster["typed_extension_protocol_options"] = {HTTP_OPTIONS: options}
    return cluster


def _route(prefix: str, cluster: str, **action: Any) -> dict[str, Any]:
    retry = {"retry_on": "connect-failure,refused-stream", "num_retries": 2}
    return {
        "match": {"prefix": prefix},
        "route": {"cluster": cluster, "timeout": "10s", "retry_policy": retry, **action},
    }


def _listener(name: str, port: int, routes: list[dict[str, Any]], **manager: Any) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": bootstrap.TYPES + "filters.http.router.v3.Router"},
    }
    hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
    config = {
        "@type": bootstrap.HCM,
        "stat_prefix": name,
        "route_config": {"name": name, "virtual_hosts": hosts},
        "http_filters": [router],
        "http2_protocol_options": {"max_concurrent_streams": MAX_STREAMS, "allow_connect": name == "connect"},
        **manager,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
    return {"name": name, "address": bootstrap.address(port), "filter_chains": [chain]}


class Stage:
    """Ports of the sidecar and what lies behind: `http1` and `http2` apps under / and /h2/, lanes under /lane/N/."""

    def __init__(self, directory: Path) -> None:
        self.http1, self.http2 = apps.App(), apps.App()
        self.port, self.connect_port, self.tls_port, self.admin = free_ports(4)
        self.lanes = [socket.create_server(("127.0.0.1", 0)) for _ in range(LANES)]
        self._next = 0
        self._directory = directory
        self._authority = Authority()

    def bootstrap(self) -> dict[str, Any]:
        """The sidecar's configuration; to be asked for when the apps run."""
        clusters = [_cluster("http1", self.http1.port, False), _cluster("http2", self.http2.port, True)]
        routes = []
        for number, lane in enumerate(self.lanes):
            clusters.append(_cluster(f"lane{number}", lane.getsockname()[1], True))
            routes.append(_route(f"/lane/{number}/", f"lane{number}"))
        routes += [_route("/h2/", "http2"), _route("/", "http1")]
        websocket = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
        tunnel = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
        connects = [
            {"match": {"connect_matcher": {}}, "route": {"cluster": "http1", **tunnel}},
            *[_route(f"/lane/{n}/", f"lane{n}", **websocket) for n in range(LANES)],
            _route("/", "http1", **websocket),
        ]
        roots = self._directory / "roots.pem"
        roots.write_text(self._authority.pem)
        files = self._authority.issue("spiffe://test/service/in").write(self._directory, "in")
        secure = bootstrap.tls("Downstream", *files, roots, _PEER)
        secure["typed_config"]["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
        tls_listener = _listener("tls", self.tls_port, routes)
        tls_listener["filter_chains"][0]["transport_socket"] = secure
        return {
            "node": {"id": "h2", "cluster": "h2"},
            "admin": {"address": bootstrap.address(self.admin)},
            "static_resources": {
                "listeners": [
                    _listener("plain", self.port, routes),
                    _listener("connect", self.connect_port, connects, upgrade_configs=[{"upgrade_type": "CONNECT"}]),
                    tls_listener,
                ],
                "clusters": clusters,
            },
        }

    def lane(self) -> Lane:
        """The lane that nobody has used for the longest time."""
        number = self._next
        self._next = (number + 1) % LANES
        lane = Lane(number, self.lanes[number])
        while not lane.silent():
            pass  # connections that an earlier test left in the backlog
        return lane

    def tls(self, protocols: list[str]) -> ssl.SSLSocket:
        """A connection over mutual TLS that offers `protocols` by ALPN (none when empty)."""
        leaf: Leaf = self._authority.issue(_PEER)
        context = client_context(self._authority.pem, leaf, self._directory)
        if protocols:
            context.set_alpn_protocols(protocols)
        return context.wrap_socket(open_socket(self.tls_port))


class Lane:
    """A cluster of one endpoint that the test plays: requests under `path` come to it."""

    def __init__(self, number: int, listening: socket.socket) -> None:
        self.path = b"/lane/%d/" % number
        self._listening = listening
        self.servers: list[Server] = []

    def accept(self, first: bytes | None = None) -> Server:
        """The sidecar's next connection, behind its preface; `first` is what we say first. Raises TimeoutError."""
        self._listening.settimeout(SECONDS)
        server = Server(self._listening.accept()[0], first)
        self.servers.append(server)
        return server

    def ask(self, client: Client, stream: int, method: bytes = b"GET") -> None:
        """Have the client ask for it, and wait for nothing; a POST is left open."""
        flags = frames.END_HEADERS | (0 if method == b"POST" else frames.END_STREAM)
        client.send(frames.headers(stream, frames.request(method, self.path), flags))

    def silent(self) -> bool:
        """True when no further connection waits to be accepted."""
        self._listening.settimeout(0)
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return True
        return False


class Play:
    """What a test has of the stage: connections and lanes that end with it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._peers: list[Peer] = []
        self._lanes: list[Lane] = []

    def client(self, *pairs: tuple[int, int], port: int | None = None, window: int = 0) -> Client:
        """A client with these settings; `window` is added to the connection's."""
        client = Client(open_socket(port or self.stage.port), *pairs, window=window)
        self._peers.append(client)
        return client

    def peer(self, sock: socket.socket) -> Peer:
        """A raw peer that has said nothing yet."""
        peer = Peer(sock)
        self._peers.append(peer)
        return peer

    def raw(self) -> Peer:
        """The same on a new cleartext connection."""
        return self.peer(open_socket(self.stage.port))

    def lane(self) -> Lane:
        """A lane of its own."""
        lane = self.stage.lane()
        self._lanes.append(lane)
        return lane

    def start(
        self, *more: frames.Field, first: bytes | None = None, method: bytes = b"GET"
    ) -> tuple[Client, Server, Lane]:
        """A client that asks on stream 1, the server that the sidecar asks then, up to the request's head."""
        lane, client = self.lane(), self.client()
        flags = frames.END_HEADERS | (0 if method == b"POST" else frames.END_STREAM)
        client.send(frames.headers(1, frames.request(method, lane.path, *more), flags))
        server = lane.accept(first)
        assert server.request() == 1
        return client, server, lane

    def close(self) -> None:
        """Close everything, the clients first."""
        for peer in [*self._peers, *(server for lane in self._lanes for server in lane.servers)]:
            peer.close()


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Stage]:
    """The sidecar and the apps."""
    stage = Stage(directory)
    with contextlib.ExitStack() as stack:
        for lane in stage.lanes:
            stack.callback(lane.close)
        stack.enter_context(apps.running((stage.http1, stage.http1.http1), (stage.http2, stage.http2.http2)))
        work = stack.enter_context(harness(directory))
        file = bootstrap.write(directory, "h2", stage.bootstrap())
        if ENVOY_JUDGES:
            command = [str(ENVOY), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
        else:
            command = [sys.executable, "-m", "proxy", "-c", str(file)]
        process = work.tree.start("sidecar", command)

        def ready() -> bool:
            assert process.returncode is None, process.tail()
            try:
                return request(stage.admin, "/ready").status == 200
            except OSError:
                return False

        wait_until(ready, 30, "the sidecar is ready")
        yield stage
        assert process.returncode is None, process.tail()
