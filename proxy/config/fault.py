"""Faults that are injected on purpose (envoy.extensions.filters.http.fault.v3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # routes hold faults
    from proxy.config.route import HeaderMatcher

FAULT: Final = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
"""HttpFilter.type_url of the fault filter."""


@dataclass(frozen=True, slots=True)
class FaultDelay:
    """envoy.extensions.filters.common.fault.v3.FaultDelay. `seconds` None: the request's headers say how long."""

    seconds: float | None
    # percentage, from 0 to 1.
    fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class FaultAbort:
    """envoy.extensions.filters.http.fault.v3.FaultAbort. Without any status the request's headers say which."""

    http_status: int | None = None
    grpc_status: int | None = None
    # percentage, from 0 to 1.
    fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """envoy.extensions.filters.http.fault.v3.HTTPFault, of a listener's filter or in a typed_per_filter_config, where
    an empty one switches faults off."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    # Only tries to this cluster; "": to any.
    upstream_cluster: str = ""
    # Only requests that match all of them.
    headers: tuple[HeaderMatcher, ...] = ()
    # Only requests whose x-envoy-downstream-service-node is one of them; (): any.
    downstream_nodes: tuple[str, ...] = ()
    # Tries of a listener that may be delayed at a time; None: any number.
    max_active: int | None = None
    # Seconds after which the fault ends by itself, from when it was configured; 0: it stays.
    # filter_metadata: {pillion: {duration: "10m"}}, which Envoy takes and does nothing with.
    duration: float = 0.0
