"""What the compiler must know about the client that it compiles for."""

from __future__ import annotations

from dataclasses import dataclass

from envoy.config.core.v3.base_pb2 import Node

OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
APP_PORT = 8080


class ClientError(ValueError):
    """The node of a client says something impossible; the message names the field."""


@dataclass(frozen=True, slots=True)
class Client:
    """Clients that are equal get the same resources. Port 0: any free port, where the client listens."""

    service: str
    app_port: int = APP_PORT
    inbound_port: int = INBOUND_PORT
    outbound_port: int = OUTBOUND_PORT

    @classmethod
    def from_node(cls, node: Node) -> Client:
        """Read `cluster` and the ports in `metadata`; absent ports have defaults. Raises ClientError."""
        if not node.cluster:
            raise ClientError("node.cluster is empty: it must be the service's name")
        return cls(
            node.cluster,
            _port(node, "app_port", 1, APP_PORT),
            _port(node, "inbound_port", 0, INBOUND_PORT),
            _port(node, "outbound_port", 0, OUTBOUND_PORT),
        )


def _port(node: Node, key: str, lowest: int, default: int) -> int:
    value = node.metadata.fields.get(key)
    if value is None:
        return default
    number = value.number_value
    if value.WhichOneof("kind") != "number_value" or not lowest <= number <= 65535 or number != int(number):
        raise ClientError(f"node.metadata.{key} is not a port: a whole number from {lowest} to 65535")
    return int(number)
