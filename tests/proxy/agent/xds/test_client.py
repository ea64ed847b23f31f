"""The ADS client against a scripted server over a real connection."""

import asyncio
import contextlib
import random

import grpc
import grpc.aio
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import StringValue

from proxy.agent.metrics import Metrics
from proxy.agent.xds.client import AdsClient, make_node
from proxy.agent.xds.protocol import CDS, EDS, LDS, Ads, Decoded, Refused

grpc.aio.init_grpc_aio()  # its sockets live as long as the process: they are not of one test


class Server(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def __init__(self):
        self.requests = asyncio.Queue()
        self.responses = asyncio.Queue()
        self.metadata = []
        self.refuse = False

    async def StreamAggregatedResources(self, request_iterator, context):
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refuse:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "session expired")

        async def read():
            async for request in request_iterator:
                self.requests.put_nowait(request)

        reading = asyncio.create_task(read())
        try:
            while (response := await self.responses.get()) is not None:
                yield response
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def got(self):
        async with asyncio.timeout(5):
            return await self.requests.get()

    def say(self, type_url, version, *texts):
        self.responses.put_nowait(
            discovery_pb2.DiscoveryResponse(
                type_url=type_url,
                version_info=version,
                nonce=f"nonce-{version}",
                resources=[Any(type_url=type_url, value=text.encode()) for text in texts],
            )
        )


def decode(type_url, raw):
    text = Any.FromString(raw).value.decode()
    if text.startswith("!"):
        raise Refused(f'cluster "{text[1:]}": connect_timeout: must be positive')
    return Decoded(text, StringValue(value=text).value, (text,) if type_url == CDS else ())


@contextlib.asynccontextmanager
async def conversation(**options):
    server, script = grpc.aio.server(), Server()
    script.refuse = options.get("refuse", False)
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    metrics, changes, refusals = Metrics(), [], []
    ads = Ads(decode)

    def refused():
        refusals.append(1)
        script.refuse = False  # the new token is good

    rng = random.Random()
    rng.uniform = lambda a, b: 0.01
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = AdsClient(
            ads,
            channel,
            make_node("cart~1", "cart", {"pillion": True, "app_port": 80}),
            lambda: "session",
            refused,
            lambda: changes.append(1),
            metrics,
            rng,
        )
        task = asyncio.create_task(client.run())
        try:
            yield script, ads, metrics, changes, refusals
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await server.stop(None)


async def test_the_first_request_says_who_and_the_token_goes_along():
    async with conversation() as (server, *_):
        first, second = await server.got(), await server.got()
        assert (first.type_url, second.type_url) == (CDS, LDS)
        assert (first.node.id, first.node.cluster) == ("cart~1", "cart")
        assert first.node.metadata["app_port"] == 80
        assert not second.HasField("node")
        assert server.metadata[0]["authorization"] == "Bearer session"


async def test_ack_nack_and_counters():
    async with conversation() as (server, ads, metrics, changes, _):
        await server.got(), await server.got()
        server.say(CDS, "1", "cart")
        ack, eds = await server.got(), await server.got()
        assert (ack.version_info, ack.response_nonce, ack.HasField("error_detail")) == ("1", "nonce-1", False)
        assert (eds.type_url, list(eds.resource_names)) == (EDS, ["cart"])
        server.say(CDS, "2", "cart", "!web")
        nack = await server.got()
        assert (nack.version_info, nack.response_nonce) == ("1", "nonce-2")
        assert nack.error_detail.message == 'cluster "web": connect_timeout: must be positive'
        assert set(ads.resources(CDS)) == {"cart"}
        assert len(changes) == 1
        assert metrics.value("xds_update_success_total", type="cds") == 1
        assert metrics.value("xds_update_rejected_total", type="cds") == 1
        assert b"control_plane_connected_state 1.0" in metrics.render()


async def test_a_lost_stream_is_resumed_and_nothing_is_forgotten():
    async with conversation() as (server, ads, _metrics, _changes, _):
        await server.got(), await server.got()
        server.say(CDS, "1", "cart")
        await server.got(), await server.got()
        server.responses.put_nowait(None)  # the server ends the stream
        again = await server.got()
        assert (again.type_url, again.version_info, again.response_nonce) == (CDS, "1", "")
        assert again.node.id == "cart~1"
        assert (await server.got()).type_url == EDS
        assert set(ads.resources(CDS)) == {"cart"}


async def test_a_refused_token_is_reported_and_the_next_attempt_works():
    async with conversation(refuse=True) as (server, _ads, _metrics, _changes, refusals):
        assert (await server.got()).type_url == CDS
        assert refusals == [1]


async def test_bytes_that_are_no_response_cost_the_stream_and_nothing_else():
    streams = asyncio.Queue()

    async def garbage(_requests, context):
        streams.put_nowait(None)
        await context.write(b"\xff\xff\xff")
        await asyncio.sleep(10)

    server, name = grpc.aio.server(), "envoy.service.discovery.v3.AggregatedDiscoveryService"
    handlers = {"StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(garbage, None, None)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    rng = random.Random()
    rng.uniform = lambda a, b: 0.01
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        node = make_node("cart~1", "cart", {})
        client = AdsClient(Ads(decode), channel, node, lambda: "session", lambda: None, lambda: None, Metrics(), rng)
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(5):
            for _ in range(3):  # it comes back
                await streams.get()
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop(None)
