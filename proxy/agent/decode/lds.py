"""Listeners (envoy.config.listener.v3)."""

from __future__ import annotations

from typing import Literal

from google.protobuf.message import Message

from proxy.agent.decode import types
from proxy.agent.decode.hcm import read_http_connection_manager
from proxy.agent.decode.matchers import decode_address
from proxy.agent.decode.reader import Reader, decode
from proxy.agent.decode.tcp_proxy import read_tcp_proxy
from proxy.agent.decode.tls import check_alpn, decode_downstream_tls
from proxy.config.listener import FilterChain, HttpConnectionManager, Listener, TcpProxy

_DIRECTIONS: dict[str, Literal["UNSPECIFIED", "INBOUND", "OUTBOUND"]] = {
    "UNSPECIFIED": "UNSPECIFIED",
    "INBOUND": "INBOUND",
    "OUTBOUND": "OUTBOUND",
}
_STAND_IN = FilterChain(HttpConnectionManager(""))


def decode_listener(message: Message, unsupported: list[str] | None = None) -> Listener:
    """A Listener, or the Any that holds it. Errors: DecodeError.

    `unsupported`: a list collects what is not supported as warnings; None makes each an error.
    """
    return decode(message, types.LISTENER, "listener", "name", read_listener, unsupported)


def read_listener(reader: Reader) -> Listener:
    """The same, for a Listener inside of a bootstrap; without a name it is called by its address."""
    address = decode_address(reader.child("address"), reader)
    reader.opaque("metadata")
    chains = reader.children("filter_chains")
    chain = _STAND_IN
    if len(chains) == 1:
        chain = _filter_chain(chains[0])
    elif chains:
        reader.error("more than one filter chain is not supported", "filter_chains")
        for other in chains:
            _filter_chain(other)
    else:
        reader.error("needs one filter chain", "filter_chains")
    return Listener(reader.text("name") or str(address), address, chain, reader.enum("traffic_direction", _DIRECTIONS))


def _filter_chain(reader: Reader) -> FilterChain:
    reader.opaque("name")
    reader.opaque("metadata")
    tls = decode_downstream_tls(reader)
    # Envoy has no limit here by default; ours is the model's: a handshake must end some time.
    timeout = reader.seconds("transport_socket_connect_timeout", _STAND_IN.transport_socket_connect_timeout)
    http: HttpConnectionManager | None = None
    tcp: TcpProxy | None = None
    filters = reader.children("filters")
    if len(filters) != 1:
        reader.error("needs exactly one filter, the HttpConnectionManager or the TcpProxy", "filters")
    for entry in filters:
        entry.opaque("name")
        if entry.one_of("config_type", "typed_config") is None:
            continue
        found = entry.any("typed_config", "filter", (types.HTTP_CONNECTION_MANAGER, types.TCP_PROXY), needed=True)
        if found is None:
            continue
        if found[0] == types.TCP_PROXY:
            tcp = read_tcp_proxy(found[1])
        else:
            http = read_http_connection_manager(found[1])
            if tls is not None and http.codec != "AUTO":
                check_alpn(reader, tls.alpn_protocols, http.codec == "HTTP2", f"codec_type {http.codec}")
    return FilterChain(http, tls, timeout, tcp)
