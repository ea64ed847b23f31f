"""What a pool does to the sockets that it opens."""

import asyncio
import random
import socket

import pytest

from proxy.cluster.state import ClusterState
from proxy.config.cluster import Cluster, Endpoint, LoadAssignment
from proxy.config.model import Address
from proxy.telemetry.counters import Counters
from proxy.worker.h2.upstream import Http2Upstream
from proxy.worker.pool import Pool
from proxy.worker.timers import Timers
from proxy.worker.upstream import Upstream


@pytest.mark.parametrize("kind", [Upstream, Http2Upstream])
async def test_writes_wait_for_no_acknowledgement(kind: type[Upstream] | type[Http2Upstream]) -> None:
    """Nagle's algorithm is off towards endpoints."""
    loop, counters = asyncio.get_running_loop(), Counters()
    timers = Timers(loop)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        cluster = ClusterState(Cluster("c", "STATIC", "c"), counters, random.random)
        cluster.assign(LoadAssignment("c", (Endpoint(address),)))
        connection = kind(Pool(loop, counters, timers), cluster, cluster.endpoints[address])
        await Pool(loop, counters, timers).dial(connection, None)
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.transport.abort()
        await asyncio.sleep(0)
    timers.close()
