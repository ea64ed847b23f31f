"""The listening sockets. The agent holds them from the first configuration to the last: a worker may die or be
replaced, and the kernel goes on accepting for the next one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from proxy.agent.errors import BindError
from proxy.config.listener import Listener

BACKLOG = 1024


class ListeningSockets:
    """Listening sockets by address ("host:port", as configured)."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def __contains__(self, address: str) -> bool:
        return address in self._sockets

    def get(self, address: str) -> socket.socket:
        """The open socket of an address that open() was called for."""
        return self._sockets[address]

    def open(self, listeners: Iterable[Listener]) -> None:
        """Bind and listen on every address that is not open yet: all of them, or none and a BindError."""
        owners: dict[str, str] = {}
        new: dict[str, socket.socket] = {}
        try:
            for listener in listeners:
                address = str(listener.address)
                if address in owners:
                    raise BindError(
                        f"listener {listener.name!r}: address {address} is used by listener {owners[address]!r}, too"
                    )
                owners[address] = listener.name
                if address not in self._sockets:
                    new[address] = listening_socket(
                        listener.address.host, listener.address.port, f"listener {listener.name!r}"
                    )
        except BaseException:
            for sock in new.values():
                sock.close()
            raise
        self._sockets.update(new)

    def bound(self, address: str) -> str:
        """The address in fact, which differs from the configured one when that asks for port 0."""
        host, port = self._sockets[address].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def keep_only(self, addresses: set[str]) -> None:
        """Close the sockets of every other address."""
        for address in self._sockets.keys() - addresses:
            self._sockets.pop(address).close()

    def close(self) -> None:
        """Close them all."""
        self.keep_only(set())


def listening_socket(host: str, port: int, who: str) -> socket.socket:
    """A non-blocking TCP socket that listens on a literal address. Raises BindError, which names `who`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        # gaierror has no errno that os.strerror knows: a listener's address is a literal one.
        reason = "not an IP address" if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise BindError(f"{who}: cannot listen on {shown}: {reason}") from error
    return sock
