"""May this request be sent again? (envoy.config.route.v3.RetryPolicy, RFC 9110 §9.2.2)"""

from __future__ import annotations

from typing import Final

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""Methods that may be repeated (RFC 9110 §9.2.2)."""

SUPPORTED_RETRY_ON: Final = frozenset(("connect-failure", "refused-stream", "reset", "reset-before-request"))
"""The conditions that this version understands."""


def on_unsent(retry_on: frozenset[str]) -> bool:
    """The request did not reach the upstream: the connection failed, or the peer says that nothing was done."""
    return not retry_on.isdisjoint(("connect-failure", "refused-stream", "reset-before-request", "reset"))


def on_reset(retry_on: frozenset[str]) -> bool:
    """The connection ended after the request was sent and before the response began."""
    return "reset" in retry_on


def on_stale(method: bytes, reused: bool) -> bool:
    """A kept-alive connection ended before any byte of the response: the peer most likely closed it while idle.

    Clients repeat such a request once on a fresh connection when the method allows it (RFC 9112 §9.3.1)."""
    return reused and method in IDEMPOTENT
