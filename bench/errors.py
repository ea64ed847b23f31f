"""What can go wrong in a run; each message is for the person who started it."""

from __future__ import annotations


class BenchError(Exception):
    """The run cannot go on as asked."""


class NotInstalled(BenchError):
    """A scenario needs a program that is not there."""


class ProxyFailed(BenchError):
    """A proxy refused its configuration, ended, or was never ready."""


class RequestsFailed(BenchError):
    """Requests failed, so the figures of this window are worth nothing."""


class NotSent(RequestsFailed):
    """The generator could not keep to its schedule: too much was waiting for answers."""
