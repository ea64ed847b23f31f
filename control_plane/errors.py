"""The control plane's typed errors; `api` turns them into gRPC statuses, `server` into exit codes."""

from __future__ import annotations


class StartError(Exception):
    """The control plane cannot start; the message names the place and what to do. Exit code 2."""


class StoreError(Exception):
    """The store could not write or read (disk full, I/O error, overload). Nothing changed; RESOURCE_EXHAUSTED.

    Not UNAVAILABLE: that is what a client sees when nobody is there.
    """


class CredentialError(Exception):
    """The token is missing, unknown, used or expired; the message says which. UNAUTHENTICATED."""


class RefusedError(Exception):
    """The caller is known, but this is not its right. PERMISSION_DENIED."""


class RequestError(ValueError):
    """The request is wrong in itself; the message names the field. INVALID_ARGUMENT."""


class FullError(Exception):
    """A bound is reached; the message names it. RESOURCE_EXHAUSTED."""
