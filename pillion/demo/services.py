"""The demo's sample services: `python -m pillion.demo.services ROLE --port P [--version V]`.

Ordinary apps that know nothing of the mesh. Each listens on 127.0.0.1 for its sidecar and calls the others by name
through HTTP_PROXY, as any program may; all that a traced app has to do is pass on the trace headers. `payments` speaks
gRPC (payments.py), the others HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from aiohttp import web

from pillion.demo.calls import about, get, http_client, passed_on, sidecar

CALLS: dict[str, tuple[str, ...]] = {
    "storefront": ("cart", "payments"),
    "cart": (),
    "payments": ("ledger",),
    "ledger": (),
}
"""Who calls whom, so that storefront → payments → ledger is two hops deep."""

Call = Callable[[dict[str, str]], Awaitable[tuple[bool, Any]]]
"""One service's call to another, with the headers to pass on: (whether all went well, the answer)."""


class Service:
    """One HTTP service: answers who it is, who called, and what its own calls answered."""

    def __init__(self, role: str, version: str) -> None:
        self._role = role
        self._version = version
        self._calls: dict[str, Call] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """200 with a JSON body, or 502 when one of its own calls failed."""
        answer = about(self._role, self._version, request.headers) | {"path": request.path}
        status = 200
        if self._calls:
            headers = passed_on(request.headers)
            results = await asyncio.gather(*(call(headers) for call in self._calls.values()))
            answer["calls"] = {target: body for target, (_, body) in zip(self._calls, results, strict=True)}
            if not all(good for good, _ in results):
                status = 502
        # With a line end, for whoever tries it with curl.
        return web.Response(text=json.dumps(answer) + "\n", status=status, content_type="application/json")

    async def clients(self, app: web.Application) -> AsyncIterator[None]:
        """aiohttp's cleanup context: one client of each kind for the life of the app."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(http_client())
            self._calls = {target: partial(get, session, target) for target in CALLS[self._role]}
            if "payments" in self._calls:
                from pillion.demo import payments  # here: only who speaks gRPC loads it

                channel = await stack.enter_async_context(payments.channel(sidecar()))
                self._calls["payments"] = partial(payments.pay, channel)
            yield


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit status 0."""
    parser = argparse.ArgumentParser(prog="pillion.demo.services", description="One sample service of the demo.")
    parser.add_argument("role", choices=sorted(CALLS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", default="v1")
    options = parser.parse_args()

    def say_ready(*_: object) -> None:
        print(f"{options.role} {options.version} ready: 127.0.0.1:{options.port}", flush=True)

    if options.role == "payments":
        from pillion.demo import payments

        asyncio.run(payments.serve(options.version, options.port, say_ready))
        return
    service = Service(options.role, options.version)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    app.cleanup_ctx.append(service.clients)
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, shutdown_timeout=2, print=say_ready)


if __name__ == "__main__":
    main()
