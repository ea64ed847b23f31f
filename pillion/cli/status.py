"""`pillion status`: who is in the mesh, and does each proxy have what it should."""

from __future__ import annotations

import time
from typing import Any

from pillion.cli.common import (
    DEFAULT_ADDRESS,
    ControlPlane,
    Json,
    TokenFileOption,
    connect,
    iso,
    print_json,
    print_table,
)


def status(
    control_plane: ControlPlane = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    as_json: Json = False,
) -> None:
    """Show the connected proxies, what they acknowledged or refused, and the registered instances."""
    with connect(control_plane, token_file) as connection:
        from pillion.v1.mesh_pb2 import StatusRequest

        answer = connection.call(connection.mesh.Status, StatusRequest())
    if as_json:
        print_json(_as_dict(answer))
        return
    print(f"trust domain {answer.trust_domain}, revision {answer.revision}\n")
    columns = ["NODE", "SERVICE", "PROTOCOL", "CONNECTED", "LDS", "RDS", "CDS", "EDS"]
    print_table("Proxies", columns, [_row(it) for it in answer.proxies], "no proxy is connected")
    refused = [
        [it.node_id, _short(resource.type_url), resource.error]
        for it in answer.proxies
        for resource in it.resources
        if resource.error
    ]
    if refused:
        print()
        print_table("Refused", ["NODE", "TYPE", "REASON"], refused, "")
    print()
    rows = [
        [it.service, it.id, f"{it.host}:{it.port}", str(it.weight), _labels(it), f"{_left(it):.0f}s"]
        for it in answer.instances
    ]
    print_table(
        "Instances",
        ["SERVICE", "INSTANCE", "ADDRESS", "WEIGHT", "LABELS", "LEASE"],
        rows,
        "no instance is registered",
    )


def _row(proxy: Any) -> list[str]:
    found = {_short(it.type_url): it for it in proxy.resources}
    cells = []
    for kind in ("LDS", "RDS", "CDS", "EDS"):
        it = found.get(kind)
        if it is None:
            cells.append("-")
        elif it.error:
            cells.append("refused")
        else:
            cells.append("synced" if it.sent_version == it.acked_version else "sent")
    return [proxy.node_id, proxy.service, proxy.protocol or "-", iso(proxy.connected), *cells]


def _short(type_url: str) -> str:
    kinds = {"Listener": "LDS", "RouteConfiguration": "RDS", "Cluster": "CDS", "ClusterLoadAssignment": "EDS"}
    name = type_url.rpartition(".")[2]
    return kinds.get(name, name)


def _labels(instance: Any) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(instance.labels.items())) or "-"


def _left(instance: Any) -> float:
    return max(0.0, float(instance.expires.ToNanoseconds()) / 1e9 - time.time())


def _as_dict(answer: Any) -> dict[str, Any]:
    return {
        "trust_domain": answer.trust_domain,
        "revision": answer.revision,
        "proxies": [
            {
                "node_id": it.node_id,
                "service": it.service,
                "protocol": it.protocol,
                "connected": iso(it.connected),
                "resources": [
                    {
                        "type": _short(r.type_url),
                        "sent_version": r.sent_version,
                        "acked_version": r.acked_version,
                        "error": r.error,
                    }
                    for r in it.resources
                ],
            }
            for it in answer.proxies
        ],
        "instances": [
            {
                "service": it.service,
                "id": it.id,
                "host": it.host,
                "port": it.port,
                "weight": it.weight,
                "labels": dict(it.labels),
                "expires": iso(it.expires),
            }
            for it in answer.instances
        ],
    }
