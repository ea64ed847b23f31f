"""What the demo's apps have in common: what they say of a request, and how they call each other by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

# What an app passes on: the trace context (W3C), and one header of this demo that selects cart's version 2.
PROPAGATED = ("traceparent", "tracestate", "x-request-id", "x-beta")

TIMEOUT = 5.0
"""Seconds for one call, the answer included."""


def sidecar() -> str:
    """The URL of the app's own sidecar; empty where there is none. An environment variable, as for every program that
    knows nothing of the mesh."""
    return os.environ.get("HTTP_PROXY", "")


def http_client() -> ClientSession:
    """For `get`. Close it."""
    return ClientSession(proxy=sidecar() or None, timeout=ClientTimeout(total=TIMEOUT))


async def get(client: ClientSession, target: str, headers: Mapping[str, str]) -> tuple[bool, Any]:
    """Call a service over HTTP: (whether it answered 200, its answer or what went wrong)."""
    try:
        async with client.get(f"http://{target}/", headers=headers) as response:
            body = await response.read()
            try:
                return response.status == 200, json.loads(body)
            except ValueError:
                return False, {"status": response.status, "body": body.decode("utf-8", "replace")[:200]}
    except (ClientError, TimeoutError) as error:
        return False, {"error": f"{type(error).__name__}: {error}"}


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a request's headers, or gRPC metadata, those that its own calls carry on."""
    return {name: headers[name] for name in PROPAGATED if name in headers}


def about(service: str, version: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """What every answer says: who gives it, who asked, and in which trace."""
    return {
        "service": service,
        "version": version,
        "peer": peer_uri(headers.get("x-forwarded-client-cert", "")),
        "traceparent": headers.get("traceparent"),
    }


def peer_uri(xfcc: str) -> str | None:
    """The caller's identity: the URI of the nearest (last) element of an x-forwarded-client-cert header.

    Envoy: config/http/conn_man/headers#x-forwarded-client-cert. Elements end with `,`, pairs with `;`; values
    with either of them are quoted.
    """
    uri: str | None = None
    for element in _split(xfcc, ","):
        uri = None
        for pair in _split(element, ";"):
            key, _, value = pair.partition("=")
            if key.strip().lower() == "uri":
                uri = value.strip().strip('"')
    return uri


def _split(text: str, separator: str) -> list[str]:
    parts, quoted, escaped = [""], False, False
    for char in text:
        if char == '"' and not escaped:
            quoted = not quoted
        escaped = char == "\\" and not escaped
        if char == separator and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts
