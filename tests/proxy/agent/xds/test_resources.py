"""From bytes to what the protocol keeps, and the words of a refusal."""

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf.any_pb2 import Any

from proxy.agent.xds.protocol import CDS, EDS, LDS, Refused
from proxy.agent.xds.resources import decode


def packed(message):
    found = Any()
    found.Pack(message)
    return found.SerializeToString()


def eds_cluster(name="cart", **fields):
    cluster = cluster_pb2.Cluster(name=name, type="EDS", **fields)
    cluster.eds_cluster_config.eds_config.ads.SetInParent()
    return cluster


def test_an_eds_cluster_refers_to_its_endpoints():
    cluster = eds_cluster()
    assert decode(CDS, packed(cluster)).refers_to == ("cart",)
    cluster.eds_cluster_config.service_name = "cart|v1"
    assert decode(CDS, packed(cluster)).refers_to == ("cart|v1",)


def test_endpoints_are_known_by_their_cluster_name():
    found = decode(EDS, packed(endpoint_pb2.ClusterLoadAssignment(cluster_name="cart|v1")))
    assert (found.name, found.refers_to) == ("cart|v1", ())


def test_a_refusal_names_resource_and_field():
    cluster = eds_cluster()
    cluster.connect_timeout.seconds = -1
    with pytest.raises(Refused, match=r'^cluster "cart": connect_timeout: '):
        decode(CDS, packed(cluster))


def test_an_sds_name_that_the_agent_does_not_have_is_refused():
    from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

    context = tls_pb2.UpstreamTlsContext()
    secret = context.common_tls_context.tls_certificate_sds_secret_configs.add(name="other")
    secret.sds_config.ads.SetInParent()
    cluster = eds_cluster()
    cluster.transport_socket.name = "envoy.transport_sockets.tls"
    cluster.transport_socket.typed_config.Pack(context)
    with pytest.raises(Refused, match=r'cluster "cart": .*other'):
        decode(CDS, packed(cluster))


def test_another_type_and_rubbish_are_refused():
    with pytest.raises(Refused, match="in a response of"):
        decode(LDS, packed(eds_cluster()))
    with pytest.raises(Refused):
        decode(CDS, b"\xff\xff\xff")
    with pytest.raises(Refused):
        decode(CDS, Any(type_url=CDS, value=b"\xff\xff").SerializeToString())
