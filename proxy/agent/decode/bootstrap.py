"""A sidecar from a file: an Envoy v3 bootstrap (envoy.config.bootstrap.v3.Bootstrap) in YAML or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.agent.decode import types
from proxy.agent.decode.cds import read_cluster
from proxy.agent.decode.lds import read_listener
from proxy.agent.decode.matchers import decode_address
from proxy.agent.decode.reader import Context, DecodeError, Reader
from proxy.agent.decode.secrets import PrivateKey, Secrets
from proxy.agent.decode.shape import load, parse
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.listener import Listener
from proxy.config.model import Address
from proxy.config.snapshot import Snapshot, consistent


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What a bootstrap file says.

    `snapshot` is consistent; a STRICT_DNS cluster has an empty load assignment in it, and a row in `dns`:
    (cluster name, endpoints whose address holds a host name), which the agent resolves and fills in.
    `keys` maps the name of each of the snapshot's certificates to its private key.
    `warnings` are sentences about what was ignored (only with allow_unsupported).
    """

    node_id: str = ""
    node_cluster: str = ""
    node_metadata: Mapping[str, Any] = field(default_factory=dict)
    admin: Address | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    dns: tuple[tuple[str, tuple[Endpoint, ...]], ...] = ()
    keys: Mapping[str, PrivateKey] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def decode_bootstrap(text: str, source: str, allow_unsupported: bool = False) -> Bootstrap:
    """Decode a bootstrap file's text; `source` is its name, for errors.

    Reads the certificates and keys that it names. Errors: DecodeError, which names file and path; with
    `allow_unsupported`, what Envoy knows and Pillion does not becomes a warning.
    """
    warnings: list[str] = []
    context = Context(warnings if allow_unsupported else None, Secrets())
    try:
        reader = Reader(parse(load(text), types.BOOTSTRAP, context), "", context)
        found = _read(reader)
        reader.done()
        context.check()
        problems = tuple(("", sentence) for sentence in consistent(found.snapshot))
        if problems:
            raise DecodeError(*problems[0], problems=problems)
    except DecodeError as error:
        raise DecodeError(error.path, error.message, source=source, problems=error.problems) from None
    return Bootstrap(
        found.node_id,
        found.node_cluster,
        found.node_metadata,
        found.admin,
        found.snapshot,
        found.dns,
        found.keys,
        tuple(warnings),
    )


def _read(reader: Reader) -> Bootstrap:
    node_id, node_cluster, metadata = _node(reader.child("node"))
    admin = reader.child("admin")
    if reader.has("dynamic_resources"):
        dynamic = reader.opaque("dynamic_resources")
        if dynamic.ListFields():
            reader.unsupported("is not supported yet; use pillion proxy --service", "dynamic_resources")
    snapshot, dns = _static_resources(reader.child("static_resources"), reader)
    secrets = reader.context.secrets
    return Bootstrap(
        node_id,
        node_cluster,
        metadata,
        decode_address(admin.child("address"), admin) if admin is not None and admin.has("address") else None,
        snapshot,
        dns,
        secrets.keys if secrets else {},
    )


def _node(reader: Reader | None) -> tuple[str, str, dict[str, Any]]:
    if reader is None:
        return "", "", {}
    reader.opaque("locality")  # where this proxy runs: information for a control plane
    metadata: dict[str, Any] = {}
    if reader.has("metadata"):
        from google.protobuf import json_format

        metadata = json_format.MessageToDict(reader.opaque("metadata"))
    return reader.value("id"), reader.value("cluster"), metadata


def _static_resources(
    reader: Reader | None, root: Reader
) -> tuple[Snapshot, tuple[tuple[str, tuple[Endpoint, ...]], ...]]:
    listeners: dict[str, Listener] = {}
    clusters: dict[str, Cluster] = {}
    assignments: dict[str, LoadAssignment] = {}
    dns: list[tuple[str, tuple[Endpoint, ...]]] = []
    addresses: dict[Address, str] = {}
    for one in reader.children("listeners") if reader else ():
        listener = read_listener(one)
        if listener.name in listeners:
            one.error(f"{listener.name!r} is the name of another listener", "name")
        if listener.address.port and listener.address in addresses:
            one.error(f"{listener.address} is listener {addresses[listener.address]!r}'s", "address")
        addresses.setdefault(listener.address, listener.name)
        listeners[listener.name] = listener
    for one in reader.children("clusters") if reader else ():
        cluster, assignment, hosts = read_cluster(one)
        if cluster.name in clusters:
            one.error(f"{cluster.name!r} is the name of another cluster", "name")
        clusters[cluster.name] = cluster
        assignments[cluster.load_assignment] = assignment or LoadAssignment(cluster.load_assignment, ())
        if hosts:
            dns.append((cluster.name, hosts))
    if not listeners:
        root.error("needs at least one listener", "static_resources")
    secrets = root.context.secrets or Secrets()
    snapshot = Snapshot(
        listeners=listeners,
        clusters=clusters,
        assignments=assignments,
        certificates=secrets.certificates,
        bundles=secrets.bundles,
    )
    return snapshot, tuple(dns)
