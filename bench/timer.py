"""A periodic kernel timer with a descriptor (timerfd_create(2)), which Python has only from 3.13 on.

Event loops wait in whole milliseconds; load at a fixed rate needs better.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK  # TFD_CLOEXEC and TFD_NONBLOCK have the same values


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Interval(ctypes.Structure):
    _fields_ = (("every", _TimeSpec), ("first", _TimeSpec))


class Timer:
    """Readable each time that it expires; the first time after one interval."""

    def __init__(self, seconds: float) -> None:
        """Start it, with this interval. Raises OSError."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._check(self._libc.timerfd_create(time.CLOCK_MONOTONIC, _CLOEXEC | _NONBLOCK))
        spec = _TimeSpec(*divmod(round(seconds * 1e9), 1_000_000_000))
        self._check(self._libc.timerfd_settime(self.fd, 0, ctypes.byref(_Interval(spec, spec)), None))

    def expirations(self) -> int:
        """How often it expired since the last call."""
        try:
            return int.from_bytes(os.read(self.fd, 8), sys.byteorder)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Stop it."""
        os.close(self.fd)

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result
