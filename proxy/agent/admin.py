"""The admin port, with Envoy's paths and words. It shows; the only changes are log level, drain and quit.

The socket listens from the start; aiohttp is imported when the first connection comes: it would be a third of an
idle agent's memory. A page in a browser can reach a loopback port, so what a browser marks as another site's
request is refused, and on loopback so is a Host that is a name (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from proxy.agent import dump
from proxy.agent.log import LEVELS
from proxy.agent.metrics import CONTENT_TYPE
from proxy.config.model import Address
from proxy.config.snapshot import Snapshot

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger(__name__)

SHUTDOWN = 1.0
"""Seconds that a request on the admin port may take to finish when the agent ends."""


class Subject(Protocol):
    """What there is to show and do: the agent."""

    @property
    def phase(self) -> str:
        """PRE_INITIALIZING, LIVE or DRAINING."""

    @property
    def log_level(self) -> str: ...

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force."""

    @property
    def ejected(self) -> Mapping[str, frozenset[Address]]:
        """By cluster, the endpoints that outlier detection keeps out."""

    async def refresh(self) -> None:
        """Have the workers report what they know now."""

    async def scrape(self) -> bytes:
        """The metrics, fresh from the workers."""

    def config_dump(self) -> dict[str, Any]: ...
    def set_log_level(self, level: str) -> None: ...
    def drain_listeners(self) -> None: ...
    def quit(self) -> None: ...


class Admin:
    """Serves one listening socket until closed."""

    def __init__(self, subject: Subject, sock: socket.socket) -> None:
        self._subject, self._socket = subject, sock
        self._runner: web.AppRunner | None = None
        self._starting: asyncio.Task[None] | None = None
        shown, bound = self._socket.getsockname()[:2]
        self._loopback = ip_address(shown).is_loopback
        self.address = f"[{shown}]:{bound}" if ":" in shown else f"{shown}:{bound}"
        asyncio.get_running_loop().add_reader(self._socket, self._first_connection)

    async def close(self) -> None:
        """Stop serving."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()

    def _first_connection(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._starting = asyncio.create_task(self._start_or_complain())

    async def _start_or_complain(self) -> None:
        try:
            await self._start()
        except Exception:  # the sidecar serves without it
            logger.exception("the admin port does not work")
            self._socket.close()

    async def _start(self) -> None:
        from aiohttp import web

        @web.middleware
        async def only_friends(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            self._refuse_strangers(request)
            return await handler(request)

        logging.getLogger("aiohttp.server").addFilter(_is_ours)
        app = web.Application(middlewares=[only_friends], client_max_size=4096)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/ready", self._ready),
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
                web.get("/stats/prometheus", self._metrics),
                web.get("/config_dump", self._config_dump),
                web.get("/clusters", self._clusters),
                web.get("/certs", self._certs),
                web.get("/logging", self._logging),
                web.post("/logging", self._set_logging),
                web.post("/drain_listeners", self._drain),
                web.post("/quitquitquit", self._quit),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN, keepalive_timeout=15.0)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    def _refuse_strangers(self, request: web.Request) -> None:
        from aiohttp import web

        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in ("none", "same-origin") or (request.method != "GET" and "Origin" in request.headers):
            raise web.HTTPForbidden(text="the admin port does not serve other sites' pages\n")
        if self._loopback and not _is_local(request.host):
            raise web.HTTPForbidden(text="use an IP address or localhost as the host of the admin port\n")

    async def _index(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(text="".join(f"{path:<28}{text}\n" for path, text in _PAGES))

    async def _ready(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        phase = self._subject.phase
        return web.Response(text=phase + "\n", status=200 if phase == "LIVE" else 503)

    async def _healthz(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(text="OK\n")  # whoever can answer this is alive

    async def _metrics(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(body=await self._subject.scrape(), headers={"Content-Type": CONTENT_TYPE})

    async def _config_dump(self, _request: web.Request) -> web.Response:
        return _json(self._subject.config_dump())

    async def _clusters(self, request: web.Request) -> web.Response:
        from aiohttp import web

        subject = self._subject
        await subject.refresh()
        if request.query.get("format") == "json":
            return _json(dump.clusters_json(subject.snapshot, subject.ejected))
        return web.Response(text=dump.clusters_text(subject.snapshot, subject.ejected))

    async def _certs(self, _request: web.Request) -> web.Response:
        return _json(dump.certs(self._subject.snapshot))

    async def _logging(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(text=f"level: {self._subject.log_level}\n")

    async def _set_logging(self, request: web.Request) -> web.Response:
        from aiohttp import web

        level = request.query.get("level", "")
        if level not in LEVELS:
            raise web.HTTPBadRequest(text=f"usage: POST /logging?level=LEVEL; one of {', '.join(LEVELS)}\n")
        self._subject.set_log_level(level)
        return web.Response(text=f"level: {level}\n")

    async def _drain(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        self._subject.drain_listeners()
        return web.Response(text="OK\n")

    async def _quit(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        self._subject.quit()
        return web.Response(text="OK\n")


_PAGES = (
    ("GET  /ready", "LIVE (200), PRE_INITIALIZING or DRAINING (503)"),
    ("GET  /healthz", "200 while the agent runs"),
    ("GET  /metrics", "Prometheus text; also /stats/prometheus"),
    ("GET  /config_dump", "the configuration in force, and its versions"),
    ("GET  /clusters", "clusters and endpoints; ?format=json"),
    ("GET  /certs", "certificates and their remaining life"),
    ("GET  /logging", "the log level; POST /logging?level=debug changes it"),
    ("POST /drain_listeners", "stop accepting, finish what is in flight"),
    ("POST /quitquitquit", "drain, then exit"),
)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a failure is ours: who sends no HTTP gets 400, and no traceback in our log."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]") or "localhost"
    if name == "localhost":
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _json(value: Any) -> web.Response:
    import json

    from aiohttp import web

    return web.json_response(value, dumps=lambda v: json.dumps(v, indent=1) + "\n")
