"""WHO MAY PASS, CHANGED HOW: HTTP filters, in one explicit table by type URL.

Rules of this room:
- A filter is made once per snapshot from its frozen config. Per request it is one call, on_request, which returns None
  to pass, a Reply, which ends the request, or a Transform, which sees the rest of the request and its response.
- A request that no filter wants to transform has no Chain and pays nothing more. The others' bodies pass the Chain as
  they come; responses pass it in reverse order, the sidecar's own replies as well.
- What a filter keeps of a request is in its Transform, bounded: a body is never gathered whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from proxy.config import filters as config
from proxy.config.rate_limit import LOCAL_RATE_LIMIT
from proxy.filters.cors import CorsFilter
from proxy.filters.grpc_web import GrpcWebFilter
from proxy.filters.interface import Chain, Filter, FilterError, Reply, Setting, Transform
from proxy.filters.local_rate_limit import LocalRateLimitFilter

FILTERS: Final[Mapping[str, Callable[[object], Filter]]] = {
    config.CORS: CorsFilter,
    config.GRPC_WEB: GrpcWebFilter,
    LOCAL_RATE_LIMIT: LocalRateLimitFilter,
}
"""type_url → constructor from the decoded config. The router is not a filter here: it is the worker's exchange."""

__all__ = ["FILTERS", "Chain", "Filter", "FilterError", "Reply", "Setting", "Transform"]
