"""From the bytes of a resource to what the protocol keeps of it."""

from __future__ import annotations

import logging

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError as WireError

from proxy.agent.decode import (
    DecodeError,
    decode_cluster,
    decode_listener,
    decode_load_assignment,
    decode_route_configuration,
)
from proxy.agent.svid import BUNDLE_NAME, CERTIFICATE_NAME
from proxy.agent.xds.protocol import CDS, EDS, LDS, Decoded, Refused
from proxy.config.model import DownstreamTls, UpstreamTls

logger = logging.getLogger(__name__)


def decode(type_url: str, raw: bytes) -> Decoded:
    """Understand a serialized Any of one of the four types. Raises Refused, which names resource and field."""
    try:
        message = Any.FromString(raw)
    except WireError:
        raise Refused("a resource is not a google.protobuf.Any") from None
    if message.type_url != type_url:
        raise Refused(f"a resource of type {message.type_url!r} in a response of {type_url!r}")
    try:
        return _decode(type_url, message)
    except DecodeError as error:
        raise Refused(str(error)) from None
    except Refused:
        raise
    except Exception as error:  # one resource that a decoder trips over must not take the sidecar down
        logger.exception("a decoder failed type=%s", type_url)
        raise Refused(f"{type_url}: cannot be decoded: {type(error).__name__}") from None


def _decode(type_url: str, message: Any) -> Decoded:
    if type_url == CDS:
        found = decode_cluster(message)
        cluster = found.cluster
        _check_secrets(f'cluster "{cluster.name}"', cluster.tls)
        needs = (cluster.load_assignment,) if cluster.discovery == "EDS" else ()
        return Decoded(cluster.name, found, needs)
    if type_url == LDS:
        listener = decode_listener(message)
        _check_secrets(f'listener "{listener.name}"', listener.filter_chain.tls)
        http = listener.filter_chain.http
        rds = http.rds if http is not None else None
        return Decoded(listener.name, listener, (rds,) if rds is not None else ())
    if type_url == EDS:
        assignment = decode_load_assignment(message)
        return Decoded(assignment.name, assignment)
    routes = decode_route_configuration(message)
    return Decoded(routes.name, routes)


def _check_secrets(where: str, tls: DownstreamTls | UpstreamTls | None) -> None:
    if tls is None:
        return
    if tls.certificate is not None and tls.certificate != CERTIFICATE_NAME:
        raise Refused(f"{where}: SDS secret {tls.certificate!r} is not known; there is {CERTIFICATE_NAME!r}")
    if tls.validation is not None and tls.validation.trusted_ca != BUNDLE_NAME:
        raise Refused(f"{where}: SDS secret {tls.validation.trusted_ca!r} is not known; there is {BUNDLE_NAME!r}")
