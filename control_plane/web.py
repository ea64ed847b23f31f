"""The web port: is it alive, and what does it count.

Read-only, plain HTTP, on the loopback address by default.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from control_plane.errors import StartError

_INDEX = """\
GET  /healthz               200 while the control plane runs
GET  /metrics               Prometheus text
"""


@contextlib.asynccontextmanager
async def serve(address: tuple[str, int], registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve /, /healthz and /metrics; gives the bound port. Raises StartError if the address cannot be used."""

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=_INDEX)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    app = web.Application()
    app.add_routes([web.get("/", index), web.get("/healthz", healthz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, *address)
        try:
            await site.start()
        except OSError as error:
            host, port = address
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
            raise StartError(f"--web {place}: {reason.lower()}; choose another address with --web") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a failure is ours: who sends no HTTP gets 400, and no traceback in our log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
