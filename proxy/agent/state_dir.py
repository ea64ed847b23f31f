"""What a sidecar keeps on disk: the last good configuration, and its identity, sealed.

So it starts while the control plane is away, and a join token that can be used once suffices for every restart.
The seal is AES-256-GCM under a key that HKDF-SHA256 (RFC 5869, random salt) derives from the join token's secret:
whoever reads this directory without the token file has nothing. Files are 0600, the directory 0700, and each file
is replaced whole, so a crash leaves the old one or the new one.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proxy.agent.svid import Svid

logger = logging.getLogger(__name__)

_MAGIC = b"pillion-identity-1\n"
_SALT, _NONCE = 32, 12
_IDENTITY, _CONFIGURATION = "identity.sealed", "configuration.json"
MAX_FILE = 256 * 1024 * 1024
"""Bytes; a longer file is not ours."""


class StateDir:
    """A directory for one instance. Reading returns None for what is missing, and for what is there and of no use: that
    with a warning."""

    def __init__(self, path: Path) -> None:
        """Make the directory. Raises OSError."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        self._path = path
        self._lock: int | None = None

    def lock(self) -> None:
        """Keep other processes out until close(). Raises BlockingIOError when one is in, OSError.

        The kernel lets go of the lock when this process ends, however that is; no child inherits the descriptor."""
        fd = os.open(self._path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._lock = fd
        for name in (_IDENTITY, _CONFIGURATION):  # half-written by a process that was killed
            for leftover in self._path.glob(f".{name}.*"):
                leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save_identity(self, svid: Svid, secret: str) -> None:
        """Seal under `secret` (the join token). Raises OSError."""
        salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
        plain = json.dumps(asdict(svid)).encode()
        self._write(
            _IDENTITY, _MAGIC + salt + nonce + _cipher(secret, salt).encrypt(nonce, plain, _MAGIC), durable=True
        )

    def load_identity(self, secret: str, now: float) -> Svid | None:
        """The sealed identity, if this secret opens it and its certificate is valid at `now` (epoch seconds)."""
        from cryptography.exceptions import InvalidTag

        data = self._read(_IDENTITY)
        head = len(_MAGIC)
        if data is None:
            return None
        salt, nonce = data[head : head + _SALT], data[head + _SALT : head + _SALT + _NONCE]
        try:
            if not data.startswith(_MAGIC):
                raise ValueError
            plain = _cipher(secret, salt).decrypt(nonce, data[head + _SALT + _NONCE :], _MAGIC)
            svid = Svid(**json.loads(plain))
        except (InvalidTag, ValueError, TypeError):
            logger.warning(
                "%s cannot be opened with this token file (damaged, or sealed under another token); joining anew",
                self._path / _IDENTITY,
            )
            return None
        if svid.expires <= now:
            logger.warning("%s has expired; joining anew", self._path / _IDENTITY)
            return None
        return svid

    def save_configuration(self, dump: dict[str, Any]) -> None:
        """`dump` is JSON with byte strings, and holds no secret. Raises OSError."""
        self._write(_CONFIGURATION, json.dumps(dump, default=_as_base64).encode(), durable=False)

    def load_configuration(self) -> dict[str, Any] | None:
        """What save_configuration was given, or None. Byte strings are base64 text: Ads.restore takes both."""
        data = self._read(_CONFIGURATION)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            logger.warning("%s cannot be read (damaged); waiting for the control plane", self._path / _CONFIGURATION)
            return None
        return value

    def _read(self, name: str) -> bytes | None:
        try:
            with open(self._path / name, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read: %s", self._path / name, error.strerror)
            return None
        return data if len(data) <= MAX_FILE else b""  # what is none of ours

    def _write(self, name: str, data: bytes, *, durable: bool) -> None:
        fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self._path)  # 0600
        try:
            with open(fd, "wb") as file:
                file.write(data)
                if durable:  # a power cut may cost the configuration, which the control plane has, not the identity
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, self._path / name)
        except BaseException:
            os.unlink(temporary)
            raise


def _cipher(secret: str, salt: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), 32, salt, _MAGIC).derive(secret.encode()))


def _as_base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")
