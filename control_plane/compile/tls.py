"""TLS between sidecars: both sides show their SVID and check the other's SPIFFE id.

Certificate and roots come by SDS under two fixed names, which the sidecar's agent answers itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
    SubjectAltNameMatcher,
)
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    CommonTlsContext,
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from pillion.client import spiffe_id

CERTIFICATE = "default"
ROOTS = "ROOTCA"
H2 = "h2"  # RFC 9113 section 3.2
HTTP_11 = "http/1.1"  # RFC 7301 section 6


def ads() -> ConfigSource:
    """ "From the stream that brought this resource." Envoy insists on the version."""
    return ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)


def upstream(trust_domain: str, service: str, alpn: Sequence[str]) -> TransportSocket:
    """To the sidecars of one service: exactly its identity."""
    peer = StringMatcher(exact=spiffe_id(trust_domain, service))
    return _socket(UpstreamTlsContext(sni=service, common_tls_context=_context(peer, alpn)))


def downstream(trust_domain: str, alpn: Sequence[str]) -> TransportSocket:
    """From any sidecar of the trust domain."""
    peer = StringMatcher(prefix=f"spiffe://{trust_domain}/")
    context = _context(peer, alpn)
    return _socket(DownstreamTlsContext(common_tls_context=context, require_client_certificate=BoolValue(value=True)))


def _context(peer: StringMatcher, alpn: Sequence[str]) -> CommonTlsContext:
    san = SubjectAltNameMatcher(san_type=SubjectAltNameMatcher.URI, matcher=peer)
    return CommonTlsContext(
        alpn_protocols=alpn,
        tls_certificate_sds_secret_configs=[SdsSecretConfig(name=CERTIFICATE, sds_config=ads())],
        combined_validation_context=CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=CertificateValidationContext(match_typed_subject_alt_names=[san]),
            validation_context_sds_secret_config=SdsSecretConfig(name=ROOTS, sds_config=ads()),
        ),
    )


def _socket(context: Message) -> TransportSocket:
    socket = TransportSocket(name="envoy.transport_sockets.tls")
    socket.typed_config.Pack(context, deterministic=True)
    return socket
