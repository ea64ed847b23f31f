"""The mesh → a snapshot for each kind of client, incrementally.

Each resource is remembered with what it was compiled from; what has the same inputs is the same object.
Tables are shared by all clients, but for the two listeners and the one cluster that depend on a client's ports and
protocol; and no client is offered its own service on a local port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

from envoy.config.route.v3.route_components_pb2 import VirtualHost
from google.protobuf.message import Message

from control_plane.compile import cds, eds, lds, rds
from control_plane.compile.client import Client
from control_plane.leases import Instance
from control_plane.mesh import Protocol, Service, ServiceDocument
from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Reference, Resource, Snapshot, Table


class _Memo:
    """The last resource for each name, with what it was made from. A sweep drops what was not asked for."""

    def __init__(self) -> None:
        self._old: dict[str, tuple[object, Resource]] = {}
        self._new: dict[str, tuple[object, Resource]] = {}

    def get(
        self,
        name: str,
        inputs: object,
        make: Callable[[], Message],
        references: Callable[[], frozenset[Reference]] = frozenset,
    ) -> None:
        known = self._old.get(name)
        if known is None or (known[0] is not inputs and known[0] != inputs):
            known = (inputs, Resource.pack(name, make(), references()))
        self._new[name] = known

    def start(self) -> None:
        """Before the first `get` of a round, also after a round that failed."""
        self._new = {}

    def sweep(self, old: Table) -> Table:
        """A table of all that was asked for; `old` itself if nothing changed."""
        self._old, self._new = self._new, {}
        resources = {name: resource for name, (_, resource) in self._old.items()}
        if old.by_name == resources:  # unchanged resources are the same objects, so this is quick
            return old
        return Table(resources.values())


class Compiler:
    """`update` with each change of the mesh, then `snapshot` for each client."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain
        self._hosts: dict[str, tuple[Service, VirtualHost]] = {}
        self._memos = {type_url: _Memo() for type_url in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}
        self._tables = {type_url: Table() for type_url in self._memos}
        self._protocols: dict[str, Protocol] = {}
        self._own: dict[Client, _Own] = {}
        self.update({}, {})

    def update(self, services: Mapping[str, ServiceDocument], instances: Mapping[tuple[str, str], Instance]) -> None:
        """Compile what differs from the last call. `instances` is ordered by its keys."""
        serving = {
            service: tuple(instances[key] for key in keys)
            for service, keys in groupby(instances, key=lambda key: key[0])
        }
        for memo in self._memos.values():
            memo.start()
        for name, document in services.items():
            self._service(document.service, serving.get(name, ()))
        self._routes(tuple(it.service for it in services.values() if it.service.protocol != "tcp"))
        self._protocols = {name: document.service.protocol for name, document in services.items()}
        for type_url, memo in self._memos.items():
            self._tables[type_url] = memo.sweep(self._tables[type_url])

    def snapshot(self, client: Client) -> Snapshot:
        """What this client should have now; the same object until something in it changes."""
        own = self._own.get(client)
        if own is None:
            own = self._own[client] = _Own(client, self._trust_domain)
        return own.snapshot(self._tables, self._protocols.get(client.service, "http"))

    def forget(self, client: Client) -> None:
        """The last client of this kind is gone."""
        self._own.pop(client, None)

    def _service(self, service: Service, instances: tuple[Instance, ...]) -> None:
        self._cluster(service, None, instances)
        for version, spec in service.versions.items():
            self._cluster(service, version, tuple(it for it in instances if eds.is_of_version(it, spec)))
        if service.local_port is not None:
            self._memos[LISTENER].get(
                lds.by_port_name(service.name),
                service,
                lambda: lds.by_port(service),
                lambda: frozenset((CLUSTER, name) for name in rds.clusters(service)),
            )

    def _cluster(self, service: Service, version: str | None, instances: tuple[Instance, ...]) -> None:
        name = cds.cluster_name(service.name, version)
        self._memos[CLUSTER].get(
            name,
            (service.name, service.protocol),
            lambda: cds.mesh_cluster(name, service, self._trust_domain),
            lambda: frozenset({(ENDPOINT, name)}),
        )
        self._memos[ENDPOINT].get(
            name,
            (instances, service.versions),
            lambda: eds.load_assignment(name, instances, service.versions),
        )

    def _routes(self, services: tuple[Service, ...]) -> None:
        def host(service: Service) -> VirtualHost:
            known, made = self._hosts.get(service.name, (None, None))
            if made is None or known is not service:
                made = rds.virtual_host(service, self._trust_domain)
            hosts[service.name] = (service, made)
            return made

        hosts: dict[str, tuple[Service, VirtualHost]] = {}
        self._memos[ROUTE].get(
            rds.OUTBOUND,
            services,
            lambda: rds.route_configuration([host(service) for service in services]),
            lambda: frozenset((CLUSTER, name) for service in services for name in rds.clusters(service)),
        )
        self._hosts = hosts or self._hosts


class _Own:
    """What only clients of one kind get, and their snapshot."""

    def __init__(self, client: Client, trust_domain: str) -> None:
        self._client = client
        self._trust_domain = trust_domain
        self._protocol: Protocol | None = None
        self._outbound = Resource.pack(rds.OUTBOUND, lds.outbound(client), [(ROUTE, rds.OUTBOUND)])
        self._shared: Mapping[str, Table] = {}
        self._snapshot = Snapshot({})

    def snapshot(self, shared: Mapping[str, Table], protocol: Protocol) -> Snapshot:
        same_protocol = self._protocol == protocol
        if self._shared != shared or not same_protocol:  # tables compare by identity
            old = self._snapshot.tables
            if self._shared.get(CLUSTER) is shared[CLUSTER] and same_protocol:
                clusters = old[CLUSTER]
            else:
                app = Resource.pack(cds.INBOUND, cds.inbound(self._client.app_port, protocol))
                clusters = Table([app, *shared[CLUSTER].by_name.values()])
            if self._shared.get(LISTENER) is shared[LISTENER] and same_protocol:
                listeners = old[LISTENER]
            else:
                listeners = self._listeners(shared[LISTENER], protocol)
            self._snapshot = Snapshot({**shared, CLUSTER: clusters, LISTENER: listeners})
            self._shared, self._protocol = dict(shared), protocol
        return self._snapshot

    def _listeners(self, by_port: Table, protocol: Protocol) -> Table:
        message = lds.inbound(self._client, self._trust_domain, protocol)
        inbound = Resource.pack(cds.INBOUND, message, [(CLUSTER, cds.INBOUND)])
        itself = lds.by_port_name(self._client.service)
        others = (resource for name, resource in by_port.by_name.items() if name != itself)
        return Table([inbound, self._outbound, *others])
