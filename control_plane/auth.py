"""Who is calling: bearer tokens in the call metadata, and how a failed call is answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio

from control_plane import mesh
from control_plane.errors import CredentialError, FullError, RefusedError, RequestError, StoreError
from control_plane.tokens import MAX_TOKEN, Tokens

log = logging.getLogger("control-plane")

Metadata = Iterable[tuple[str, str | bytes]]
Context = grpc.aio.ServicerContext[Any, Any]
S = TypeVar("S", bound="Servicer")
Q = TypeVar("Q")
R = TypeVar("R")

FAILURES_PER_MINUTE = 30  # for one host; a caller with a good token is never held up
MAX_HOSTS = 1024
MAX_DETAILS = 5000  # bytes as percent-encoded: a status travels in the trailers, which gRPC holds to 8 KiB


class MissingError(Exception):
    """What was asked for does not exist. NOT_FOUND."""


_STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (CredentialError, grpc.StatusCode.UNAUTHENTICATED),
    (RefusedError, grpc.StatusCode.PERMISSION_DENIED),
    (mesh.ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (MissingError, grpc.StatusCode.NOT_FOUND),
    (FullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreError, grpc.StatusCode.RESOURCE_EXHAUSTED),
)


class Authenticator:
    """Checks the tokens in call metadata; counts the hosts that fail. `clock` gives monotonic seconds."""

    def __init__(self, tokens: Tokens, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._clock = clock
        self._failures: dict[str, tuple[float, int]] = {}  # host: start of its minute, failures in it

    def operator(self, metadata: Metadata) -> None:
        """Raises CredentialError unless the caller is the operator."""
        self._tokens.check_operator(_bearer(metadata))

    def session(self, metadata: Metadata) -> str:
        """The service that the caller's session is for. Raises CredentialError."""
        return self._tokens.session(_bearer(metadata))

    def failed(self, host: str) -> bool:
        """Count a failed call; True if the host has had its share for this minute."""
        now = self._clock()
        start, count = self._failures.pop(host, (now, 0))
        if now - start >= 60:
            start, count = now, 0
        self._failures[host] = (start, count + 1)
        if len(self._failures) > MAX_HOSTS:
            del self._failures[next(iter(self._failures))]  # the one that failed longest ago
        return count >= FAILURES_PER_MINUTE


class Servicer:
    """What the three services have in common."""

    def __init__(self, auth: Authenticator, on_auth_failure: Callable[[], None]) -> None:
        self._auth = auth
        self._on_auth_failure = on_auth_failure

    async def _refuse(self, context: Context, error: Exception) -> None:
        """Answer with the status of a typed error. Always raises."""
        if isinstance(error, CredentialError):
            self._on_auth_failure()
            host = str(context.peer()).rpartition(":")[0]
            if self._auth.failed(host):
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "too many failed authentications from this host; wait a minute",
                )
            log.warning("authentication failed peer=%s reason=%s", context.peer(), str(error))
        for kind, status in _STATUS:
            if isinstance(error, kind):
                await context.abort(status, bounded(str(error)))
        log.error("internal error", exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error; the control plane's log has the details")


def answered(
    method: Callable[[S, Q, Context], Awaitable[R]],
) -> Callable[[S, Q, Context], Awaitable[R]]:
    """Turn the typed errors of an RPC method into statuses."""

    @wraps(method)
    async def call(self: S, request: Q, context: Context) -> R:
        try:
            return await method(self, request, context)
        except grpc.aio.AbortError:  # the method has answered
            raise
        except Exception as error:
            await self._refuse(context, error)
            raise

    return call


def bounded(text: str) -> str:
    """Whole lines of `text`, as many as a gRPC status carries."""
    kept: list[str] = []
    size = 0
    lines = text.split("\n")
    for line in lines:
        size += len(quote(line)) + 3
        if size > MAX_DETAILS:
            break
        kept.append(line)
    if len(kept) < len(lines):
        kept.append(f"... and {len(lines) - len(kept)} more" if kept else lines[0][: MAX_DETAILS // 12])
    return "\n".join(kept)


def _bearer(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode("latin-1")
            scheme, _, token = text.partition(" ")
            if scheme.lower() == "bearer" and token and len(token) <= MAX_TOKEN:
                return token
            raise CredentialError("the authorization metadata is not 'Bearer TOKEN'")
    raise CredentialError("no token: send the metadata 'authorization: Bearer TOKEN'")
