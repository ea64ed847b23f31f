"""How much time is left? gRPC's timeouts on the wire (gRPC over HTTP/2, "Timeout")."""

from __future__ import annotations

from typing import Final

_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_VALUE: Final = 99_999_999
"""TimeoutValue has at most eight digits."""


def read_grpc_timeout(value: bytes) -> float | None:
    """Seconds; None for what is no timeout."""
    digits = value[:-1]
    unit = _UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * unit


def grpc_timeout(seconds: float) -> bytes:
    """A timeout for the wire, in the finest unit that it fits; what has passed is a nanosecond, since 0 is none."""
    micros = int(seconds * 1e6)
    if micros <= 0:
        return b"1n"
    if micros <= _MAX_VALUE:
        return b"%du" % micros
    millis = int(seconds * 1e3)
    if millis <= _MAX_VALUE:
        return b"%dm" % millis
    return b"%dS" % min(int(seconds), _MAX_VALUE)
