"""Who the other side of a TLS connection is, by its certificate."""

from __future__ import annotations

import hashlib
import os
import ssl
from time import time
from typing import Any, Final
from urllib.parse import quote

_MAX_KNOWN: Final = 1024
_UNSAFE: Final = frozenset(' ",;')


class PeerError(Exception):
    """The peer's certificate verified but is not acceptable; `reason` is the label of the error counter."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Certificate:
    """What a verified certificate says. `expires`: seconds of the epoch; `error`: why no rule needs to look at it."""

    __slots__ = ("dns", "error", "expires", "subject", "uri")

    def __init__(self, decoded: dict[str, Any]) -> None:
        """`decoded`: as ssl.SSLSocket.getpeercert tells it."""
        names = decoded.get("subjectAltName", ())
        self.uri: tuple[str, ...] = tuple(value for kind, value in names if kind == "URI")
        self.dns: tuple[str, ...] = tuple(value for kind, value in names if kind == "DNS")
        self.subject: tuple[tuple[tuple[str, str], ...], ...] = decoded.get("subject", ())
        self.expires = ssl.cert_time_to_seconds(decoded["notAfter"]) if "notAfter" in decoded else 0
        # These names go into headers and logs as they are.
        quotable = all(n.isascii() and n.isprintable() and _UNSAFE.isdisjoint(n) for n in self.uri + self.dns)
        self.error = "" if quotable else "certificate with a name that cannot be quoted"


_NONE: Final = Certificate({})
_known: dict[bytes, Certificate] = {}


def _read(der: bytes) -> Certificate:
    """A certificate. Peers come again with the one that they have, so it is remembered, within a bound."""
    known = _known.get(der)
    if known is None:
        # Python decodes certificates only of its own connections, or from a file: this one has no name on any disk.
        fd = os.memfd_create("peer", os.MFD_CLOEXEC)
        try:
            os.write(fd, ssl.DER_cert_to_PEM_cert(der).encode())
            known = Certificate(ssl._ssl._test_decode_cert(f"/proc/self/fd/{fd}"))  # type: ignore[attr-defined]
        except (ValueError, KeyError) as error:  # names that are not UTF-8, for one
            raise PeerError("bad_san", f"certificate that cannot be read: {error}") from None
        finally:
            os.close(fd)
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[der] = known
    return known


class Peer:
    """The other side's certificate; `presented` is False when it showed none. Raises PeerError for one that no other
    rule needs to look at."""

    __slots__ = ("_der", "_subject", "dns", "presented", "uri")

    def __init__(self, ssl_object: Any, verified: bool) -> None:
        """`verified`: OpenSSL has checked the certificate; what another says is not read."""
        self._der: bytes = ssl_object.getpeercert(True) or b""
        self.presented = bool(self._der)
        certificate = _read(self._der) if verified and self._der else _NONE
        self.uri = certificate.uri
        self.dns = certificate.dns
        self._subject = certificate.subject
        if certificate.error:
            raise PeerError("bad_san", certificate.error)
        # A resumed session (TLS 1.2) brings its certificate along, but nobody has looked at its dates again.
        if certificate.expires and certificate.expires < time():
            raise PeerError("expired", "the session's certificate has expired")

    @property
    def identity(self) -> str:
        """The one URI SAN, or empty."""
        return self.uri[0] if len(self.uri) == 1 else ""

    def subject(self) -> str:
        """The subject as RFC 2253 writes it: the most specific part first."""
        return ",".join(
            "+".join(f"{_SHORT.get(key, key)}={_escape(value)}" for key, value in part)
            for part in reversed(self._subject)
        )

    def xfcc(self, by: str, details: tuple[str, ...]) -> bytes:
        """One element of x-forwarded-client-cert (Envoy, "HTTP header manipulation")."""
        parts = [f"By={by}"] if by else []
        parts.append(f"Hash={hashlib.sha256(self._der).hexdigest()}")
        if "cert" in details:
            parts.append(f'Cert="{quote(ssl.DER_cert_to_PEM_cert(self._der), safe="")}"')
        if "subject" in details:
            parts.append(f'Subject="{self.subject()}"')
        if "uri" in details:
            parts += [f"URI={uri}" for uri in self.uri] or ["URI="]
        if "dns" in details:
            parts += [f"DNS={name}" for name in self.dns]
        return ";".join(parts).encode()


_SHORT = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "stateOrProvinceName": "ST", "localityName": "L", "domainComponent": "DC", "serialNumber": "serialNumber",
}  # fmt: skip


def _escape(value: str) -> str:
    """RFC 2253 §2.4, with bytes beyond printable ASCII in hexadecimal, as OpenSSL writes it for Envoy."""
    escaped = ""
    data = value.encode()
    for at, byte in enumerate(data):
        char = chr(byte)
        if not 0x20 <= byte < 0x7F:
            escaped += f"\\{byte:02X}"
        elif char in ',+"\\<>;' or (at == 0 and char in "# ") or (at == len(data) - 1 and char == " "):
            escaped += f"\\{char}"
        else:
            escaped += char
    return escaped
