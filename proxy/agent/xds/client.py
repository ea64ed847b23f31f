"""Carries the ADS conversation over gRPC, and begins it again whenever the stream is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.rpc import code_pb2, status_pb2

from pillion.client import bearer, is_another_mesh
from proxy.agent.backoff import Backoff
from proxy.agent.errors import StartError
from proxy.agent.metrics import Metrics
from proxy.agent.xds.protocol import TYPES, Ads, Request, short

logger = logging.getLogger(__name__)

FIRST_RESPONSE_TIMEOUT = 15.0
"""Seconds until a new stream must have brought something (Envoy's initial_fetch_timeout)."""
MAX_ERROR = 4096
"""Characters of a NACK's message."""


class AdsClient:
    """Runs until cancelled. `changed` is called after each response that changed something."""

    def __init__(
        self,
        ads: Ads,
        channel: grpc.aio.Channel,
        node: base_pb2.Node,
        session_token: Callable[[], str],
        token_refused: Callable[[], None],
        changed: Callable[[], None],
        metrics: Metrics,
        rng: random.Random | None = None,
        explain: Callable[[grpc.aio.AioRpcError], str] = str,
    ) -> None:
        self._ads, self._node, self._metrics = ads, node, metrics
        self._session_token, self._token_refused, self._changed = session_token, token_refused, changed
        self._explain = explain
        self._stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        self._backoff = Backoff(rng=rng)
        self._identified = self._lived = False
        metrics.gauge("control_plane_connected_state", 0)
        for type_url in TYPES:
            metrics.count("xds_update_success_total", 0, type=short(type_url))
            metrics.count("xds_update_rejected_total", 0, type=short(type_url))

    async def run(self) -> None:
        """Talk for ever. What is known stays known while the control plane is away."""
        told: bool | None = None  # of this outage; True: that another mesh's control plane answers
        while True:
            self._lived = another = False
            try:
                await self._stream()
                reason = "the control plane ended the stream"
            except grpc.aio.AioRpcError as error:
                reason, another = self._explain(error), is_another_mesh(error.details())
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    self._token_refused()
            except TimeoutError:
                reason = f"no response within {FIRST_RESPONSE_TIMEOUT:g} s"
            except StartError:
                raise
            except Exception as error:  # no answer of a control plane may take the sidecar down
                reason = f"the stream failed: {type(error).__name__}: {error}"
                logger.debug("xds stream failed", exc_info=error)
            finally:
                self._metrics.gauge("control_plane_connected_state", 0)
            delay = self._backoff.next()
            # Once an outage, and once more when it is found to be one that waiting does not end.
            level = logging.WARNING if self._lived or told is None or (another and not told) else logging.DEBUG
            told = another or (bool(told) and not self._lived)
            logger.log(
                level,
                "xds stream lost: %s; serving the last good configuration retry_in=%.1fs",
                reason,
                delay,
            )
            await asyncio.sleep(delay)

    async def _stream(self) -> None:
        self._identified = False
        call = self._stub.StreamAggregatedResources(metadata=bearer(self._session_token()))
        try:
            async with asyncio.timeout(FIRST_RESPONSE_TIMEOUT):
                for request in self._ads.open():
                    await call.write(self._message(request))
                response = await _read(call)
            if response is not grpc.aio.EOF:
                self._metrics.gauge("control_plane_connected_state", 1)
                self._backoff.reset()
                self._lived = True
                logger.info("xds stream up")
            while response is not grpc.aio.EOF:
                for request in self._received(response):
                    await call.write(self._message(request))
                response = await _read(call)
        except asyncio.InvalidStateError:
            pass  # the server ended the stream between two writes: the status says why
        finally:
            call.cancel()
        status = await call.code()
        if status != grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                status, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )

    def _received(self, response: discovery_pb2.DiscoveryResponse) -> list[Request]:
        raws = [resource.SerializeToString(deterministic=True) for resource in response.resources]
        requests, changed = self._ads.receive(response.type_url, response.version_info, response.nonce, raws)
        for request in requests[:1]:
            kind = short(response.type_url)
            if request.error is None:
                self._metrics.count("xds_update_success_total", type=kind)
                logger.debug("xds accepted type=%s version=%s resources=%d", kind, response.version_info, len(raws))
            else:
                self._metrics.count("xds_update_rejected_total", type=kind)
                logger.error("xds refused type=%s version=%s: %s", kind, response.version_info, request.error)
        if changed:
            self._changed()
        return requests

    def _message(self, request: Request) -> discovery_pb2.DiscoveryRequest:
        message = discovery_pb2.DiscoveryRequest(
            type_url=request.type_url,
            version_info=request.version,
            response_nonce=request.nonce,
            resource_names=request.names,
        )
        if not self._identified:  # the first request of a stream says who asks
            message.node.CopyFrom(self._node)
            self._identified = True
        if request.error is not None:
            message.error_detail.CopyFrom(
                status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=request.error[:MAX_ERROR])
            )
        return message


async def _read(call: Any) -> Any:
    response = await call.read()
    if response is None:  # so says grpc when it cannot parse a message
        raise ValueError("a response is not a DiscoveryResponse")
    return response


def make_node(node_id: str, cluster: str, metadata: Mapping[str, Any]) -> base_pb2.Node:
    """Who we are (envoy.config.core.v3.Node)."""
    node = base_pb2.Node(id=node_id, cluster=cluster, user_agent_name="pillion")
    node.metadata.update(dict(metadata))
    return node
