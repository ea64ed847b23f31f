"""The listening sockets. The agent holds them from the first configuration to the last: a worker may die or be
replaced, and the kernel goes on accepting for the next one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping

from proxy.agent.errors import BindError
from proxy.config.listener import Listener

BACKLOG = 1024


class ListeningSockets:
    """Listening sockets by address ("host:port", as configured)."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._reserved: dict[str, socket.socket] = {}

    def __contains__(self, address: str) -> bool:
        return address in self._sockets

    def get(self, address: str) -> socket.socket:
        """The open socket of an address that open() was called for."""
        return self._sockets[address]

    def reserve(self, sockets: Iterable[socket.socket]) -> None:
        """Own these bound sockets. open() listens on them; keep_only() closes those that it was not called for."""
        self._reserved = {_shown(*sock.getsockname()[:2]): sock for sock in sockets}

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
                if address in self._sockets:
                    continue
                who = f"listener {listener.name!r}"
                if address in self._reserved:
                    new[address] = self._reserved.pop(address)
                    listen(new[address], who)
                else:
                    new[address] = listening_socket(listener.address.host, listener.address.port, who)
        except BaseException:
            for sock in new.values():
                sock.close()
            raise
        self._sockets.update(new)

    def bound(self, address: str) -> str:
        """The address in fact, which differs from the configured one when that asks for port 0."""
        return _shown(*self._sockets[address].getsockname()[:2])

    def keep_only(self, addresses: set[str]) -> None:
        """Close the sockets of every other address."""
        for sockets in (self._sockets, self._reserved):
            for address in sockets.keys() - addresses:
                sockets.pop(address).close()

    def close(self) -> None:
        """Close them all."""
        self.keep_only(set())


def listening_socket(host: str, port: int, who: str) -> socket.socket:
    """A non-blocking TCP socket that listens on a literal address. Raises BindError, which names `who`."""
    try:
        sock = _bound_socket(host, port)
    except OSError as error:
        raise BindError(f"{who}: cannot listen on {_shown(host, port)}: {_reason(error)}") from error
    listen(sock, who)
    return sock


def bind_all(wanted: Mapping[str, tuple[str, int]]) -> dict[str, socket.socket]:
    """Bind a socket for each `flag: (host, port)`: all, or none and a BindError that names every flag that failed.

    They do not listen yet: who connects is refused, so that it tries elsewhere instead of waiting for a sidecar
    that is not ready. A port that somebody listens on is noticed all the same.
    """
    sockets: dict[str, socket.socket] = {}
    problems: list[str] = []
    for flag, (host, port) in wanted.items():
        try:
            sockets[flag] = _bound_socket(host, port)
        except OSError as error:
            problems.append(f"{flag} {port}: {_reason(error).lower()}")
    if problems:
        for sock in sockets.values():
            sock.close()
        raise BindError("; ".join(problems))
    return sockets


def listen(sock: socket.socket, who: str) -> None:
    """Start to listen on a bound socket. Raises BindError, which names `who`, and closes the socket."""
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        shown = _shown(*sock.getsockname()[:2])
        sock.close()
        raise BindError(f"{who}: cannot listen on {shown}: {_reason(error)}") from error


def _bound_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    # gaierror has no errno that os.strerror knows: a listener's address is a literal one.
    return "not an IP address" if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
