"""WHO MAY PASS, CHANGED HOW: HTTP filters, in one explicit table by type URL.

Rules of this room:
- A filter is compiled once per snapshot from its frozen config; per request it is one call each way.
- on_request returns None to pass, or a Reply, which ends the request; filters see responses in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from proxy.http.headers import Headers
from proxy.http.heads import RequestHead, ResponseHead


@dataclass(frozen=True, slots=True)
class Reply:
    """A response made by a filter. `flag` and `details` go to the access log."""

    status: int
    headers: Headers
    body: bytes
    flag: str = ""
    details: str = ""


class Filter(Protocol):
    """One filter of one listener."""

    def on_request(self, head: RequestHead, peer: str) -> Reply | None:
        """Pass, change or answer a request. `peer` is the verified URI SAN of the client, or empty."""

    def on_response(self, head: ResponseHead) -> None:
        """Change a response."""


FILTERS: Final[Mapping[str, Callable[[object], Filter]]] = {}
"""type_url → constructor from the decoded config. The router is not a filter here: it is the worker's exchange."""
