"""What the admin port shows, as pure functions of the configuration in force. Shapes and words are Envoy's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any

from proxy.config.cluster import ClusterHealth, Endpoint
from proxy.config.model import Address
from proxy.config.snapshot import Snapshot

_SECTIONS = (
    # kind of the snapshot, Envoy's message, its field, the key inside
    ("clusters", "ClustersConfigDump", "clusters", "cluster"),
    ("assignments", "EndpointsConfigDump", "endpoint_configs", "endpoint_config"),
    ("listeners", "ListenersConfigDump", "listeners", "listener"),
    ("routes", "RoutesConfigDump", "route_configs", "route_config"),
    ("certificates", "SecretsConfigDump", "secrets", "secret"),
    ("bundles", "SecretsConfigDump", "secrets", "secret"),
)

Ejected = Mapping[str, frozenset[Address]]

ACTIVE_HC, OUTLIER_CHECK, EDS_HEALTH = "failed_active_hc", "failed_outlier_check", "failed_eds_health"
EDS_DEGRADED = "degraded_eds_health"
REMOVAL, PENDING = "pending_dynamic_removal", "pending_active_hc"
_JSON_FLAGS = {
    ACTIVE_HC: "failed_active_health_check",
    OUTLIER_CHECK: "failed_outlier_check",
    REMOVAL: "pending_dynamic_removal",
    PENDING: "pending_active_hc",
}


def plain(value: Any) -> Any:
    """A frozen model value as JSON types."""
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value


def config_dump(
    snapshot: Snapshot,
    source: str,
    versions: Mapping[str, str],
    node: Mapping[str, Any],
    waiting_for: Iterable[str] = (),
) -> dict[str, Any]:
    """Envoy's /config_dump. `source` says where it comes from (a file's name, a control plane); `versions` are
    the accepted xDS versions by kind; `waiting_for` is why a newer configuration is not in force yet.

    A snapshot holds no private key, so neither does this."""
    configs: list[dict[str, Any]] = [
        {"@type": "BootstrapConfigDump", "source": source, "bootstrap": {"node": plain(node)}}
    ]
    for kind, message, list_name, item_name in _SECTIONS:
        prefix = "dynamic" if versions else "static"
        items = [
            {"name": name, "version_info": versions.get(kind, ""), item_name: plain(value)}
            for name, value in sorted(getattr(snapshot, kind).items())
        ]
        key = f"{prefix}_{list_name}"
        section: dict[str, Any] = {"@type": message, "version_info": versions.get(kind, ""), key: items}
        if configs[-1]["@type"] == message:
            configs[-1][key] += items
        else:
            configs.append(section)
    return {"configs": configs, "waiting_for": list(waiting_for)}


def clusters_text(snapshot: Snapshot, ejected: Ejected = MappingProxyType({})) -> str:
    """Envoy's /clusters. `ejected`: by cluster, whom outlier detection keeps out."""
    lines: list[str] = []
    for name, cluster in sorted(snapshot.clusters.items()):
        breakers = cluster.circuit_breakers
        lines += [f"{name}::default_priority::{item.name}::{getattr(breakers, item.name)}" for item in fields(breakers)]
        lines.append(f"{name}::added_via_api::{str(cluster.discovery == 'EDS').lower()}")
        for endpoint, flags in _hosts(snapshot, name, ejected):
            shown = "".join(f"/{flag}" for flag in flags) or "healthy"
            lines.append(f"{name}::{endpoint.address}::health_flags::{shown}")
            lines.append(f"{name}::{endpoint.address}::weight::{endpoint.weight}")
            lines += [f"{name}::{endpoint.address}::{key}::{value}" for key, value in endpoint.labels]
    return "".join(line + "\n" for line in lines)


def clusters_json(snapshot: Snapshot, ejected: Ejected = MappingProxyType({})) -> dict[str, Any]:
    """Envoy's /clusters?format=json (envoy.admin.v3.Clusters)."""
    statuses = []
    for name, cluster in sorted(snapshot.clusters.items()):
        hosts = [
            {
                "address": {"socket_address": {"address": endpoint.address.host, "port_value": endpoint.address.port}},
                "weight": endpoint.weight,
                "health_status": {
                    "eds_health_status": _eds_status(endpoint),
                    **{_JSON_FLAGS[flag]: True for flag in flags if flag in _JSON_FLAGS},
                },
                "metadata": dict(endpoint.labels),
            }
            for endpoint, flags in _hosts(snapshot, name, ejected)
        ]
        statuses.append({"name": name, "added_via_api": cluster.discovery == "EDS", "host_statuses": hosts})
    return {"cluster_statuses": statuses}


def _eds_status(endpoint: Endpoint) -> str:
    if endpoint.degraded:
        return "DEGRADED"
    return "HEALTHY" if endpoint.healthy else "UNHEALTHY"


def _hosts(snapshot: Snapshot, name: str, ejected: Ejected) -> Iterator[tuple[Endpoint, list[str]]]:
    """The endpoints of a cluster, each with its health flags, in Envoy's words and order."""
    cluster = snapshot.clusters[name]
    assignment = snapshot.assignments.get(cluster.load_assignment)
    health = snapshot.health.get(name, ClusterHealth(name))
    failed, pending, out = frozenset(health.failed), frozenset(health.pending), ejected.get(name, frozenset())
    listed = assignment.endpoints if assignment else ()
    for endpoint, removed in chain(zip(listed, repeat(False)), zip(health.kept, repeat(True))):
        flags = {
            ACTIVE_HC: endpoint.address in failed,
            OUTLIER_CHECK: endpoint.address in out,
            EDS_HEALTH: not endpoint.healthy and not endpoint.degraded,
            EDS_DEGRADED: endpoint.degraded,
            REMOVAL: removed,
            PENDING: endpoint.address in pending,
        }
        yield endpoint, [flag for flag, is_set in flags.items() if is_set]


def certs(snapshot: Snapshot, now: float | None = None) -> dict[str, Any]:
    """Envoy's /certs: one entry a certificate and one a bundle, by name. `now` is in epoch seconds."""
    at = time.time() if now is None else now
    entries = [
        {"name": name, "ca_cert": [], "cert_chain": _described(certificate.chain_pem, at)}
        for name, certificate in sorted(snapshot.certificates.items())
    ]
    entries += [
        {"name": name, "ca_cert": _described(bundle.pem, at), "cert_chain": []}
        for name, bundle in sorted(snapshot.bundles.items())
    ]
    return {"certificates": entries}


def _described(pem: str, now: float) -> list[dict[str, Any]]:
    from cryptography import x509

    found = []
    for certificate in x509.load_pem_x509_certificates(pem.encode()):
        try:
            san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = []
        else:
            names = [{"uri": uri} for uri in san.get_values_for_type(x509.UniformResourceIdentifier)]
            names += [{"dns": dns} for dns in san.get_values_for_type(x509.DNSName)]
        left = certificate.not_valid_after_utc.timestamp() - now
        found.append(
            {
                "path": "<inline>",
                "serial_number": f"{certificate.serial_number:x}",
                "subject_alt_names": names,
                "days_until_expiration": str(max(0, int(left // 86400))),
                "valid_from": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "expiration_time": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
    return found
