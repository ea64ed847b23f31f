"""What a service speaks, in the clusters, listeners and routes that lead to it."""

from __future__ import annotations

from itertools import product

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import RouteAction
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext, UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from control_plane import mesh
from control_plane.compile import Client, Compiler, rds
from control_plane.snapshot import CLUSTER, LISTENER, Snapshot

PROTOCOLS = ("http", "http2", "grpc", "tcp")
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def documents(text: str) -> dict[str, mesh.ServiceDocument]:
    found = mesh.parse([("mesh", text)])
    mesh.validate(found)
    return {it.name: it for it in found}


def service(name: str, protocol: str, more: str = "") -> str:
    port = "localPort: 15432\n" if protocol == "tcp" else ""
    return f"kind: Service\nname: {name}\nprotocol: {protocol}\n{port}{more}---\n"


def compiled(text: str, client: str) -> Snapshot:
    compiler = Compiler("pillion.local")
    compiler.update(documents(text), {})
    return compiler.snapshot(Client(client))


def unpack(snapshot: Snapshot, type_url: str, name: str, message: Message):
    assert Any.FromString(snapshot.tables[type_url].by_name[name].body).Unpack(message)
    return message


def http2_of(cluster: Cluster) -> Http2ProtocolOptions | None:
    """None: HTTP/1.1, as for whom nothing is said."""
    if OPTIONS not in cluster.typed_extension_protocol_options:
        return None
    options = HttpProtocolOptions()
    assert cluster.typed_extension_protocol_options[OPTIONS].Unpack(options)
    assert options.explicit_http_config.WhichOneof("protocol_config") == "http2_protocol_options"
    return options.explicit_http_config.http2_protocol_options


@pytest.mark.parametrize(
    ("protocol", "alpn", "http2"),
    [("http", ["http/1.1"], False), ("http2", ["h2"], True), ("grpc", ["h2"], True), ("tcp", [], False)],
)
def test_the_cluster_of_a_service_and_of_its_versions(protocol: str, alpn: list[str], http2: bool) -> None:
    text = service("pay", protocol, "versions: {v1: {labels: {v: a}}}\n") + service("shop", "http")
    snapshot = compiled(text, "shop")
    for name in ("pay", "pay|v1"):
        cluster = unpack(snapshot, CLUSTER, name, Cluster())
        context = UpstreamTlsContext()
        assert cluster.transport_socket.typed_config.Unpack(context)
        assert list(context.common_tls_context.alpn_protocols) == alpn
        options = http2_of(cluster)
        assert (options is not None) is http2
        if options is not None:
            assert options.allow_connect
            assert options.connection_keepalive.interval.seconds == 30
            assert options.connection_keepalive.timeout.seconds == 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_towards_its_own_app_a_sidecar_speaks_what_the_app_does(protocol: str) -> None:
    options = http2_of(unpack(compiled(service("pay", protocol), "pay"), CLUSTER, "inbound", Cluster()))
    assert (options is not None) is (protocol in ("http2", "grpc"))
    assert options is None or (options.allow_connect and not options.HasField("connection_keepalive"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_other_sidecars_it_takes_both_versions_of_http(protocol: str) -> None:
    listener = unpack(compiled(service("pay", protocol), "pay"), LISTENER, "inbound", Listener())
    context, manager = DownstreamTlsContext(), HttpConnectionManager()
    chain = listener.filter_chains[0]
    assert chain.transport_socket.typed_config.Unpack(context)
    alpn = list(context.common_tls_context.alpn_protocols)
    if protocol == "tcp":
        assert alpn == []
        return
    assert alpn == ["h2", "http/1.1"]
    assert chain.filters[0].typed_config.Unpack(manager)
    assert manager.codec_type == HttpConnectionManager.AUTO
    assert manager.http2_protocol_options.allow_connect
    assert manager.http2_protocol_options.connection_keepalive.interval.seconds == 30
    action = manager.route_config.virtual_hosts[0].routes[0].route
    assert (action.HasField("timeout"), action.timeout) == (True, Duration())
    assert (action.HasField("idle_timeout"), action.idle_timeout) == (protocol == "grpc", Duration())


def test_an_app_may_speak_either_version_to_its_sidecar() -> None:
    listener = unpack(compiled(service("shop", "http"), "shop"), LISTENER, "outbound", Listener())
    manager = HttpConnectionManager()
    assert listener.filter_chains[0].filters[0].typed_config.Unpack(manager)
    assert manager.codec_type == HttpConnectionManager.AUTO
    assert manager.http2_protocol_options == Http2ProtocolOptions(allow_connect=True)


def action(protocol: str, timeouts: str) -> RouteAction:
    text = service("pay", protocol, f"routes: [{{backendRefs: [{{name: pay}}]{timeouts}}}]\n")
    (route,) = rds.routes(documents(text)["pay"].service)
    return route.route


@pytest.mark.parametrize(("timeouts", "seconds"), [("", 15), (", timeouts: {request: 2s}", 2)])
def test_a_request_over_http2_is_timed_as_over_http1(timeouts: str, seconds: int) -> None:
    found = action("http2", timeouts)
    assert (found.timeout, found.HasField("max_stream_duration")) == (Duration(seconds=seconds), False)
    assert not found.HasField("idle_timeout")
    assert found == action("http", timeouts)


@pytest.mark.parametrize("timeouts", ["", ", timeouts: {request: 0s}"])
def test_only_its_callers_deadline_ends_a_grpc_call(timeouts: str) -> None:
    found = action("grpc", timeouts)
    longest = found.max_stream_duration
    assert (found.HasField("timeout"), found.timeout) == (True, Duration())
    assert (found.HasField("idle_timeout"), found.idle_timeout) == (True, Duration())
    assert (longest.HasField("grpc_timeout_header_max"), longest.grpc_timeout_header_max) == (True, Duration())
    assert not longest.HasField("max_stream_duration")


def test_a_request_timeout_bounds_a_grpc_calls_deadline() -> None:
    found = action("grpc", ", timeouts: {request: 1500ms}")
    bound = Duration(seconds=1, nanos=500_000_000)
    assert found.timeout == Duration()
    assert found.max_stream_duration.max_stream_duration == bound
    assert found.max_stream_duration.grpc_timeout_header_max == bound


def test_a_service_without_routes_is_timed_by_its_protocol() -> None:
    (found,) = rds.routes(documents(service("pay", "grpc"))["pay"].service)
    assert found.route.HasField("max_stream_duration")


@pytest.mark.parametrize(("old", "new"), [pair for pair in product(PROTOCOLS, PROTOCOLS) if pair[0] != pair[1]])
def test_a_change_of_protocol_is_the_same_as_from_scratch(old: str, new: str) -> None:
    compiler = Compiler("pillion.local")
    clients = [Client("pay"), Client("shop")]
    for protocol in (old, new):
        compiler.update(documents(service("pay", protocol) + service("shop", "http")), {})
        found = [compiler.snapshot(client) for client in clients]
    for client, snapshot in zip(clients, found, strict=True):
        wanted = compiled(service("pay", new) + service("shop", "http"), client.service)
        assert {key: it.everything().version for key, it in snapshot.tables.items()} == {
            key: it.everything().version for key, it in wanted.tables.items()
        }
