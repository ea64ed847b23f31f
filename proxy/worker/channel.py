"""The socketpair between agent and worker: messages, and the descriptors that travel with them.

A message is a frozen dataclass, pickled, behind a 4-byte big-endian length. Both ends are the same code base and the
pair is private to parent and child, so pickle is safe here. At most one descriptor accompanies a message; it is sent
with the first byte of that message (SCM_RIGHTS, unix(7)), and received descriptors queue up in message order.
"""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import dataclass

from proxy.config.model import Address
from proxy.config.snapshot import Delta

MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes; a longer length prefix means a corrupted stream."""

MetricKey = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and its sorted (label, value) pairs."""


# ---- agent → worker ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listen:
    """Adopt the listening socket that comes with this message for listeners on `address` ("host:port")."""

    address: str
    HAS_FD = True


@dataclass(frozen=True, slots=True)
class Key:
    """The memfd that comes with this message holds chain and private key (PEM) of a TlsCertificate."""

    name: str
    key_id: str
    HAS_FD = True


@dataclass(frozen=True, slots=True)
class Update:
    """Apply the delta to the snapshot in force; answered by Applied."""

    version: int
    delta: Delta


@dataclass(frozen=True, slots=True)
class Flush:
    """Send what Stats there are now; answered by Stats with the same `id`."""

    id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop accepting, finish what is in flight for at most `seconds`, then exit with status 0."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Workers:
    """So many workers, this one among them, share the listeners' requests. Sent before the first Update."""

    count: int


@dataclass(frozen=True, slots=True)
class Readmit:
    """An active health check of this endpoint has passed: outlier detection keeps it out no longer."""

    cluster: str
    address: Address


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Change the level of the worker's log (a name of the logging module, lower case)."""

    level: str


# ---- worker → agent ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """The update `version` is in force, or was refused whole with `error` and the one before stays."""

    version: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """What was counted since the last Stats: increments of counters; gauges as they are; histograms as increments
    of bucket counts (telemetry.counters.BUCKETS, one more for +Inf) and of the sum. `id` is 0 unless it answers a
    Flush. Names and labels: telemetry/counters.py."""

    id: int
    counters: tuple[tuple[MetricKey, int], ...]
    gauges: tuple[tuple[MetricKey, float], ...]
    histograms: tuple[tuple[MetricKey, tuple[int, ...], float], ...]
    # By cluster, whom outlier detection keeps out now; clusters where that is nobody are left out.
    ejected: tuple[tuple[str, tuple[Address, ...]], ...] = ()


Message = Listen | Key | Update | Flush | Drain | Readmit | LogLevel | Workers | Applied | Stats


def encode(message: Message) -> bytes:
    """The bytes of one message."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Cuts a byte stream into messages. Pure: descriptors are queued by whoever reads the socket."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by `data`, in order. Raises ValueError on a corrupted stream."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "big")
            if size > MAX_MESSAGE:
                raise ValueError(f"message of {size} bytes on the worker channel")
            if len(buffer) - start - 4 < size:
                break
            messages.append(pickle.loads(buffer[start + 4 : start + 4 + size]))  # noqa: S301  # see the module's text
            start += 4 + size
        del buffer[:start]
        return messages


def receive(sock: socket.socket, size: int = 262144) -> tuple[bytes, list[int]]:
    """Read once from a non-blocking socket: (data, descriptors). Empty data means the peer is gone.

    Raises BlockingIOError when there is nothing to read. Descriptors are close-on-exec.
    """
    data, fds, _flags, _address = socket.recv_fds(sock, size, 8, socket.MSG_CMSG_CLOEXEC)
    return data, list(fds)


def memfd(name: str, content: bytes) -> int:
    """An anonymous, close-on-exec memory file with `content`, never on a disk. The caller closes it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
    except BaseException:
        os.close(fd)
        raise
    return fd
