"""STRICT_DNS clusters: their host names resolved again and again, in the agent, so that a worker never waits.

As Envoy does it: every address of the answer is an endpoint; every 5 s (dns_refresh_rate's default); a failed lookup
keeps the last good answer. Of a name with IPv4 and IPv6 addresses the IPv4 ones are used (Envoy's V4_PREFERRED):
with both, an application that listens on 127.0.0.1 only would lose every second connection to "localhost".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from proxy.config.cluster import Endpoint, LoadAssignment
from proxy.config.model import Address

logger = logging.getLogger(__name__)

REFRESH = 5.0
"""Seconds between two lookups of a name."""
LOOKUP_TIMEOUT = 5.0
"""Seconds after which a lookup counts as failed; its thread may go on, and no second one is started for the name."""

Answers = Mapping[str, tuple[str, ...]]
"""Host name → its addresses, in a stable order. A name is missing until it was asked for once."""


def is_name(host: str) -> bool:
    """Whether `host` needs a lookup."""
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def resolved(assignment: LoadAssignment, answers: Answers) -> LoadAssignment | None:
    """The assignment with each named endpoint replaced by one an address; None while an answer is missing."""
    endpoints: dict[Address, Endpoint] = {}
    for endpoint in assignment.endpoints:
        if not is_name(endpoint.address.host):
            endpoints.setdefault(endpoint.address, endpoint)
        elif endpoint.address.host not in answers:
            return None
        else:
            for host in answers[endpoint.address.host]:
                address = Address(host, endpoint.address.port)
                endpoints.setdefault(address, replace(endpoint, address=address))
    return LoadAssignment(assignment.name, tuple(endpoints.values()))


def usable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Deduplicated and sorted; IPv4 only, if there is any."""
    found = sorted({ip_address(text.partition("%")[0]) for text in addresses}, key=lambda a: (a.version, int(a)))
    four = [address for address in found if address.version == 4]
    return tuple(str(address) for address in four or found)


class Resolver:
    """Looks names up while they are wanted, and calls `changed` when an answer did."""

    def __init__(
        self,
        changed: Callable[[], None],
        lookup: Callable[[str], Iterable[str]] | None = None,
        refresh: float = REFRESH,
    ) -> None:
        """`lookup` blocks, in a thread of its own; it raises OSError. Default: getaddrinfo."""
        self.answers: dict[str, tuple[str, ...]] = {}
        self._changed, self._lookup, self._refresh = changed, lookup or _getaddrinfo, refresh
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, wanted: frozenset[str]) -> None:
        """Resolve exactly these names from now on."""
        for name in self._tasks.keys() - wanted:
            self._tasks.pop(name).cancel()
            self.answers.pop(name, None)
        for name in wanted - self._tasks.keys():
            self._tasks[name] = asyncio.create_task(self._keep(name))

    async def stop(self) -> None:
        """Look nothing up any more."""
        tasks = list(self._tasks.values())
        self.want(frozenset())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str) -> None:
        failed = False
        while True:
            pending = self._start(name)
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT):
                    answer = usable(await asyncio.shield(pending))
            except (OSError, TimeoutError) as error:
                if not failed:  # once an outage, not every 5 s
                    logger.warning("name not resolved name=%s error=%r", name, str(error) or "timeout")
                failed = True
                answer = self.answers.get(name, ())
            else:
                failed = False
            if self.answers.get(name) != answer:
                logger.info("name resolved name=%s addresses=%s", name, ",".join(answer) or "none")
                self.answers[name] = answer
                self._changed()
            await asyncio.sleep(self._refresh)
            await asyncio.wait([pending])

    def _start(self, name: str) -> asyncio.Future[list[str]]:
        # A daemon thread each: a lookup that hangs must hold up neither other names nor the agent's exit, and
        # the loop's own executor is waited for at exit.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def finish(answer: list[str] | OSError) -> None:
            if future.done():
                return
            if isinstance(answer, OSError):
                future.set_exception(answer)
                future.exception()  # seen, even when the waiter gave up
            else:
                future.set_result(answer)

        def run() -> None:
            answer: list[str] | OSError
            try:
                answer = list(self._lookup(name))
            except OSError as error:
                answer = error
            except UnicodeError as error:
                answer = OSError(f"not a host name: {error}")
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(finish, answer)

        threading.Thread(target=run, name=f"lookup {name}", daemon=True).start()
        return future


def _getaddrinfo(name: str) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
