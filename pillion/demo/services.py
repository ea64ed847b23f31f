"""The demo's sample services: `python -m pillion.demo.services ROLE --port P [--version V]`.

Ordinary HTTP apps that know nothing of the mesh. Each listens on 127.0.0.1 for its sidecar and calls the
others by name through HTTP_PROXY, as any program may; all that a traced app has to do is pass on the trace
headers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

CALLS: dict[str, tuple[str, ...]] = {
    "storefront": ("cart", "payments"),
    "cart": (),
    "payments": ("ledger",),
    "ledger": (),
}
"""Who calls whom, so that storefront → payments → ledger is two hops deep."""

# What an app passes on: the trace context (W3C), and one header of this demo that selects cart's version 2.
PROPAGATED = ("traceparent", "tracestate", "x-request-id", "x-beta")

_CLIENT = web.AppKey("client", ClientSession)


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


class Service:
    """One service: answers who it is, who called, and what its own calls answered."""

    def __init__(self, role: str, version: str) -> None:
        self._role = role
        self._version = version

    async def handle(self, request: web.Request) -> web.Response:
        """200 with a JSON body, or 502 when one of its own calls failed."""
        answer: dict[str, Any] = {
            "service": self._role,
            "version": self._version,
            "path": request.path,
            "peer": peer_uri(request.headers.get("x-forwarded-client-cert", "")),
            "traceparent": request.headers.get("traceparent"),
        }
        status = 200
        if targets := CALLS[self._role]:
            headers = {name: request.headers[name] for name in PROPAGATED if name in request.headers}
            client = request.app[_CLIENT]
            results = await asyncio.gather(*(_call(client, target, headers) for target in targets))
            answer["calls"] = {target: body for target, (_, body) in zip(targets, results, strict=True)}
            if any(code != 200 for code, _ in results):
                status = 502
        # With a line end, for whoever tries it with curl.
        return web.Response(text=json.dumps(answer) + "\n", status=status, content_type="application/json")

    async def client(self, app: web.Application) -> AsyncIterator[None]:
        """aiohttp's cleanup context: one client session for the life of the app."""
        # An environment variable, as for every program that knows nothing of the mesh.
        proxy = os.environ.get("HTTP_PROXY")
        async with ClientSession(proxy=proxy, timeout=ClientTimeout(total=5)) as session:
            app[_CLIENT] = session
            yield


async def _call(client: ClientSession, target: str, headers: dict[str, str]) -> tuple[int, Any]:
    try:
        async with client.get(f"http://{target}/", headers=headers) as response:
            body = await response.read()
            try:
                return response.status, json.loads(body)
            except ValueError:
                return response.status, {
                    "status": response.status,
                    "body": body.decode("utf-8", "replace")[:200],
                }
    except (ClientError, TimeoutError) as error:
        return 0, {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit status 0."""
    parser = argparse.ArgumentParser(prog="pillion.demo.services", description="One sample service of the demo.")
    parser.add_argument("role", choices=sorted(CALLS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", default="v1")
    options = parser.parse_args()
    service = Service(options.role, options.version)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    app.cleanup_ctx.append(service.client)
    web.run_app(
        app,
        host="127.0.0.1",
        port=options.port,
        access_log=None,
        shutdown_timeout=2,
        print=lambda _: print(f"{options.role} {options.version} ready: 127.0.0.1:{options.port}", flush=True),
    )


if __name__ == "__main__":
    main()
