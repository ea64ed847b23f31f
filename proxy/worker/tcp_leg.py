"""The two sides of a relayed TCP connection: a non-blocking socket, plain or with TLS.

TLS here is ssl.SSLObject over memory BIOs, not aiofastnet's transport: that one (1.2) has no write_eof, and answers the
peer's close_notify by closing, whereas TLS has a half-close (RFC 8446 §6.1) which a relay has to keep.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
from typing import Any, Final

BLOCKED: Final = -1
"""Instead of a number of bytes: nothing now, the socket will tell."""

_CIPHERTEXT: Final = 64 * 1024
"""Read from a socket at once and encrypted at once: what a TLS leg's buffers grow to, each way."""
_RESET: Final = struct.pack("ii", 1, 0)

_ciphertext: Final = bytearray(_CIPHERTEXT)
_ciphertext_view: Final = memoryview(_ciphertext)


class Leg:
    """A plain socket. Whatever raises raises OSError, after which only close() and reset() make sense.

    `ended`: the last read() brought the end as well, and the socket will not tell of it again."""

    __slots__ = ("ended", "fd", "plain", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.plain = True
        self.ended = False

    def handshake(self) -> bool:
        """Get ready to carry bytes; False: call again when the socket is readable or, if `unsent`, writable."""
        return True

    def read(self, room: memoryview) -> int:
        """Bytes put into `room`; 0: the peer sends no more (half-close); BLOCKED."""
        try:
            return self.sock.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return BLOCKED

    def write(self, data: memoryview) -> int:
        """Bytes taken, from none to all. All of them were sent, or wait in `unsent` for flush()."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    @property
    def unsent(self) -> bool:
        """Whether something taken has not been sent yet."""
        return False

    def flush(self) -> None:
        """Send what is unsent, as far as the socket takes it."""

    def end(self) -> None:
        """Tell the peer that nothing follows; it may go on sending. Only when nothing is unsent."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # then the peer has gone, and cares no more
                raise

    def close(self) -> None:
        """Close in order; the kernel sends what it has taken."""
        self.sock.close()

    def reset(self) -> None:
        """Close so that the peer cannot take it for the regular end of the stream."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()


class TlsLeg(Leg):
    """A socket with TLS. `ssl_object` knows the peer after handshake()."""

    __slots__ = ("_incoming", "_outgoing", "_unsent", "ssl_object")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_name: str | None) -> None:
        """`server_name`: what a client asks for by SNI; None: the server's side."""
        super().__init__(sock)
        self.plain = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = b""
        # Any: with a buffer, read() gives a number, and typeshed does not know it; mypyc would refuse it.
        self.ssl_object: Any = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )

    def handshake(self) -> bool:
        """Raises ssl.SSLError also for what the peer says of us, and ConnectionError when it goes away."""
        while True:
            try:
                self.ssl_object.do_handshake()
            except ssl.SSLWantReadError:
                self._send()
                count = self._receive()
                if count == BLOCKED:
                    return False
                if count == 0:
                    raise ConnectionResetError("closed during the TLS handshake") from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._send()  # the alert that says why
                raise
            else:
                self._send()
                return not self._unsent

    def _receive(self) -> int:
        """Ciphertext from the socket; as read()."""
        try:
            count = self.sock.recv_into(_ciphertext)
        except (BlockingIOError, InterruptedError):
            return BLOCKED
        if count:
            self._incoming.write(_ciphertext_view[:count])
        return count

    def read(self, room: memoryview) -> int:
        """What one read of the socket brings fits into `room` of 128 KiB or more, so nothing decrypted stays behind."""
        total = self._decrypt(room)
        if total != BLOCKED:
            return total
        count = self._receive()
        if count == 0:
            raise ConnectionResetError("closed without close_notify")  # truncated, RFC 8446 §6.1
        return BLOCKED if count == BLOCKED else self._decrypt(room)

    def _decrypt(self, room: memoryview) -> int:
        total = 0
        try:
            while total < len(room):
                count: int = self.ssl_object.read(len(room) - total, room[total:])
                if not count:
                    break
                total += count
        except ssl.SSLWantReadError:
            if self._outgoing.pending:  # TLS 1.3: the answer to a KeyUpdate
                self._send()
            return total or BLOCKED
        except ssl.SSLZeroReturnError:  # close_notify after ours; before it, read() gives 0
            pass
        self.ended = total < len(room)
        return total

    def write(self, data: memoryview) -> int:
        """As Leg.write: what is taken is encrypted, and sent or kept."""
        taken, size = 0, len(data)
        while taken < size and not self._unsent:
            taken += self.ssl_object.write(data[taken : taken + _CIPHERTEXT])
            self._send()
        return taken

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def flush(self) -> None:
        if self._unsent:
            self._send()

    def _send(self) -> None:
        data = self._unsent + self._outgoing.read() if self._unsent else self._outgoing.read()
        if data:
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            self._unsent = data[sent:]

    def end(self) -> None:
        """Send close_notify. The TCP connection stays open both ways: a FIN before the peer's own close_notify would
        look like a broken connection to TLS implementations that know no half-close."""
        with contextlib.suppress(ssl.SSLWantReadError):  # ours is written; the peer's is still to come
            self.ssl_object.unwrap()
        self._send()

    def close(self) -> None:
        """Say close_notify, if it was not said and can still be."""
        try:
            if not self._unsent:
                self.end()
        except (OSError, ValueError):
            pass
        self.sock.close()
