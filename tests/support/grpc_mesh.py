"""A pair of sidecars over mutual TLS for HTTP/2 and gRPC, Pillion or the real Envoy in each seat, from the same files.

A request's authority says its way: LINK.APP, where LINK is `h2` or `h1`, what the sidecars speak to each other, and APP
the cluster behind the second one. Everything that is special to a test is one more virtual host or cluster.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pillion.demo.processes import free_ports
from tests.support import bootstrap
from tests.support.bootstrap import TYPES, address
from tests.support.certificates import Authority
from tests.support.envoy import ENVOY, MISSING
from tests.support.harness import Harness
from tests.support.http import request
from tests.support.sidecars import IN, OUT, Pair, Sidecar
from tests.support.wait import wait_until

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
WINDOW = 256 * 1024
"""Bytes: the window of each stream, in both sidecars."""
HTTP2: dict[str, Any] = {
    "initial_stream_window_size": WINDOW,
    "initial_connection_window_size": 64 * WINDOW,
    "allow_connect": True,
}
LOG = {
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "protocol": "%PROTOCOL%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "host": "%UPSTREAM_HOST%",
}


@dataclass(frozen=True)
class Seats:
    """Who sits where: "pillion" or "envoy"."""

    front: str
    back: str

    def __str__(self) -> str:
        return f"{self.front}-{self.back}"


PILLION = Seats("pillion", "pillion")


def pairs() -> list[Any]:
    """Parameters of a fixture: Pillion twice, and with Envoy on either side.

    PAIR=envoy-envoy in the environment runs the same tests with other seats: what fails there is the test's
    fault, but for what the tests say that Envoy does not do."""
    if chosen := os.environ.get("PAIR"):
        return [pytest.param(Seats(*chosen.split("-")), id=chosen)]
    marks = [pytest.mark.envoy, pytest.mark.skipif(MISSING, reason="Envoy is not installed")]
    mixed = [Seats("envoy", "pillion"), Seats("pillion", "envoy")]
    return [
        pytest.param(PILLION, id=str(PILLION)),
        *(pytest.param(seats, id=str(seats), marks=marks) for seats in mixed),
    ]


def only_pillion() -> Seats:
    """For tests that need no second opinion; PAIR as above."""
    chosen = os.environ.get("PAIR")
    return Seats(*chosen.split("-")) if chosen else PILLION


def cluster(
    name: str, *ports: int, http2: bool = True, tls: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """A STATIC cluster of local ports that is spoken to in HTTP/2, or in HTTP/1.1."""
    explicit = {"http2_protocol_options": HTTP2} if http2 else {"http_protocol_options": {}}
    options = {"@type": f"type.googleapis.com/{OPTIONS}", "explicit_http_config": explicit}
    endpoints = [{"endpoint": {"address": address(port)}} for port in ports]
    values: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {OPTIONS: options},
        **fields,
    }
    return values if tls is None else {**values, "transport_socket": tls}


def host(name: str, cluster: str, *domains: str, **action: Any) -> dict[str, Any]:
    """A virtual host with one route, which has no timeout unless `action` sets one."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s", **action}}
    return {"name": name, "domains": list(domains), "routes": [route]}


def listener(
    name: str, port: int, hosts: Sequence[dict[str, Any]], tls: dict[str, Any] | None = None, **manager: Any
) -> dict[str, Any]:
    """A listener for HTTP/1.1 and HTTP/2; `manager` adds fields to its HttpConnectionManager."""
    log = {
        "@type": f"{TYPES}access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"json_format": {**LOG, "listener": name}},
    }
    router = {"@type": f"{TYPES}filters.http.router.v3.Router"}
    config = {
        "@type": bootstrap.HCM,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "http2_protocol_options": HTTP2,
        "access_log": [{"name": "envoy.access_loggers.stdout", "typed_config": log}],
        "route_config": {"name": name, "virtual_hosts": list(hosts)},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        **manager,
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]
    chain: dict[str, Any] = {"filters": filters}
    if tls is not None:
        chain["transport_socket"] = tls
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def start(
    work: Harness,
    seat: str,
    name: str,
    listeners: Sequence[dict[str, Any]],
    clusters: Sequence[dict[str, Any]],
    flags: Sequence[str] = (),
) -> Sidecar:
    """One sidecar, once it is ready; `listen` is the first listener's port, `flags` are Pillion's."""
    (admin,) = free_ports(1)
    values = {
        "node": {"id": name, "cluster": name},
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": list(listeners), "clusters": list(clusters)},
    }
    command = [sys.executable, "-m", "proxy", *flags]
    if seat == "envoy":
        _for_envoy(values)
        quiet = ("--concurrency", "1", "--use-dynamic-base-id", "-l", "error", "--file-flush-interval-msec", "50")
        command = [str(ENVOY), *quiet]
    file = bootstrap.write(work.directory, name, values)
    process = work.tree.start(name, [*command, "-c", str(file)])

    def ready() -> bool:
        assert process.returncode is None, process.tail(30)
        try:
            return request(admin, "/ready").status == 200
        except OSError:
            return False

    wait_until(ready, 30, f"{name} is ready")
    port: int = listeners[0]["address"]["socket_address"]["port_value"]
    return Sidecar(process, port, admin)


def _for_envoy(values: dict[str, Any]) -> None:
    """What Envoy does only when told so, and Pillion always: trailers of HTTP/1.1, retries that go elsewhere."""
    elsewhere = {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": f"{TYPES}retry.host.previous_hosts.v3.PreviousHostsPredicate"},
    }
    trailers = {"http_protocol_options": {"enable_trailers": True}}
    for one in values["static_resources"]["listeners"]:
        manager = one["filter_chains"][0]["filters"][0]["typed_config"]
        manager.setdefault("http_protocol_options", {})["enable_trailers"] = True
        for host in manager["route_config"]["virtual_hosts"]:
            if policy := host["routes"][0].get("route", {}).get("retry_policy"):
                policy["retry_host_predicate"] = [elsewhere]
    for one in values["static_resources"]["clusters"]:
        explicit = one["typed_extension_protocol_options"][OPTIONS]["explicit_http_config"]
        if "http_protocol_options" in explicit:
            explicit.update(trailers)


@dataclass(frozen=True)
class Credentials:
    """Transport sockets of both ends of the link."""

    server: dict[str, Any]
    client: dict[str, Any]


def credentials(work: Harness) -> Credentials:
    """New ones, in files of the harness. The server offers h2 and http/1.1 (ALPN, RFC 7301)."""
    ca = Authority()
    roots = work.directory / "ca.pem"
    roots.write_text(ca.pem)
    server = bootstrap.tls("Downstream", *ca.issue(IN).write(work.directory, "in"), roots, OUT)
    server["typed_config"]["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
    client = bootstrap.tls("Upstream", *ca.issue(OUT).write(work.directory, "out"), roots, IN)
    return Credentials(server, client)


def start_pair(
    work: Harness,
    seats: Seats,
    apps: Mapping[str, int],
    *,
    http1: Sequence[str] = (),
    front_hosts: Sequence[dict[str, Any]] = (),
    back_hosts: Sequence[dict[str, Any]] = (),
    front_clusters: Sequence[dict[str, Any]] = (),
    back_clusters: Sequence[dict[str, Any]] = (),
    **manager: Any,
) -> Pair:
    """A pair in front of `apps`: ports by name, spoken to in HTTP/2 unless their name is in `http1`."""
    keys = credentials(work)
    front_port, back_port = free_ports(2)
    hosts = [*back_hosts, *(host(name, name, f"*.{name}") for name in apps)]
    clusters = [*back_clusters, *(cluster(name, port, http2=name not in http1) for name, port in apps.items())]
    back = start(work, seats.back, "back", [listener("back", back_port, hosts, keys.server, **manager)], clusters)
    hosts = [*front_hosts, host("h2", "h2", "h2.*"), host("h1", "h1", "h1.*")]
    links = [cluster("h2", back_port, tls=keys.client), cluster("h1", back_port, http2=False, tls=keys.client)]
    front = start(
        work, seats.front, "front", [listener("front", front_port, hosts, **manager)], [*front_clusters, *links]
    )
    return Pair(front, back)
