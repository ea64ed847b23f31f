"""A connection to an endpoint for the bytes of one CONNECT, where a route ends it here (RouteAction.UpgradeConfig
.connect_config): no HTTP is spoken on it, so it neither comes from the pool nor goes there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from proxy.http.heads import CONNECT
from proxy.worker.peer import PeerError
from proxy.worker.upstream import Upstream

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.worker.exchange import Exchange
    from proxy.worker.pool import Pool

log = logging.getLogger("proxy.worker.pool")

_ESTABLISHED: Final = b"HTTP/1.1 200 OK\r\n\r\n"
"""What a proxy in the endpoint's place would answer (RFC 9110 §9.3.6)."""


class RawUpstream(Upstream):
    """See the module's text. Its exchange gets the 200 from here, as soon as the connection is open."""

    __slots__ = ("_owner", "_refused")

    def __init__(self, pool: Pool, cluster: ClusterState, endpoint: Endpoint, owner: Exchange) -> None:
        super().__init__(pool, cluster, endpoint)
        self._owner: Exchange | None = owner
        self._refused: PeerError | None = None
        self._requests = 1
        self.reader.expect(b"CONNECT", CONNECT)
        self.reader.feed(_ESTABLISHED)

    async def open(self) -> None:
        """Connect, and hand over to the exchange or tell it why not. Called once."""
        pool, transport = self._pool, self.cluster.transport
        try:
            await pool.dial(self, transport)
            if self._refused is not None:
                raise self._refused
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not isinstance(error, OSError | TimeoutError | PeerError):
                log.exception("connecting to %s", self.endpoint.text)
            owner, self._owner = self._owner, None
            text = pool.connect_failed(self, transport, error)
            if owner is not None:
                owner.upstream = None
                owner.on_connect_failure(text)

    def connection_made(self, transport: Any) -> None:
        # Here and not behind `dial`: an endpoint that speaks first may do so, and end, before that returns.
        self.transport = transport
        owner, secured = self._owner, self.cluster.transport
        if owner is None:
            transport.abort()
            return
        if secured is not None:
            try:
                self._pool.identify(self, secured)
            except Exception as error:
                self._refused = error if isinstance(error, PeerError) else PeerError("other", str(error))
                transport.abort()
                return
        self._pool.counters.values[self.cluster.connections_total] += 1
        self._owner = None
        self.exchange = owner
        message = self.reader.message
        assert message is not None
        owner.on_response(message)

    def abort(self) -> None:
        self._owner = None
        if self.transport is not None:
            super().abort()
