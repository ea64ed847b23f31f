"""`pillion demo`: build the mesh, drive traffic through it, show what its sidecars say, take it down.

Exit status: 0 when there were requests and none failed, and also when a person ended it (Ctrl-C, SIGTERM); 1
when requests failed or the mesh did not come up.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from aiohttp import ClientError, ClientSession, ClientTimeout
from rich.console import Console
from rich.live import Live

from pillion.demo import report, view
from pillion.demo.mesh import Mesh, Sidecar
from pillion.demo.processes import Process, ProcessFailed, Tree, free_ports, is_free
from pillion.demo.services import CALLS
from pillion.demo.traffic import GrpcTotals, Traffic

RATE = 25.0
"""Requests per second into the storefront; each becomes five in the mesh: to the storefront, its cart, payments twice
(gRPC: a call and a stream) and the ledger."""

READY_TIMEOUT = 60.0
"""Seconds for each stage of the start; generous, for a slow machine."""

WINDOW = 10
"""Seconds that the live table's rates look back."""

INSTANCES = (("storefront", "v1"), ("cart", "v1"), ("cart", "v2"), ("payments", "v1"), ("ledger", "v1"))
EDGES = (("visitor", "storefront"), *((source, to) for source, targets in CALLS.items() for to in targets))


@dataclass(slots=True)
class Instance:
    """A sidecar, its app (None for the traffic's own), and its scrapes: (monotonic seconds, sample), oldest
    first.
    """

    service: str
    version: str
    sidecar: Sidecar
    app: Process | None
    first: report.Sample | None = None
    samples: deque[tuple[float, report.Sample]] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))

    @property
    def state(self) -> str:
        """What a person wants to know of its processes."""
        gone = [
            name for name, process in (("app", self.app), ("sidecar", self.sidecar.process)) if process and process.died
        ]
        return f"{'both' if len(gone) == 2 else gone[0]} gone" if gone else "up"


class NotReady(Exception):
    """A part of the mesh did not come up in time."""


class Stopped(Exception):
    """A person, or whoever started us, asked us to end."""


class Demo:
    """One run. Everything that it starts is in `tree`, every file in `directory`."""

    def __init__(self, directory: Path, console: Console, tree: Tree) -> None:
        self._console = console
        self._mesh = Mesh(tree, directory)
        self._tree = tree
        self._instances: list[Instance] = []
        self._trust_domain = ""
        self._asked_to_stop = asyncio.Event()
        self.traffic: Traffic | None = None
        self.began = self.ended = 0.0

    def ask_to_stop(self) -> None:
        """For signal handlers."""
        self._asked_to_stop.set()

    # ---- coming up -------------------------------------------------------------------------------

    async def start(self, session: ClientSession) -> None:
        """Control plane, sidecars and apps; returns once a request has gone all the way through to every
        instance.

        Raises ProcessFailed, NotReady, Stopped, or grpc.RpcError.
        """
        self._say(f"logs are in {self._tree.logs}")
        taken = [port for port in (15000, 15001, 15010, 15014) if not is_free(port)]
        if taken:
            self._say(f"in use, so other ports instead: {', '.join(map(str, taken))}")
        control_plane = self._mesh.start_control_plane(_prefer(15010), _prefer(15014))
        await self._until(control_plane.ready, control_plane.process)
        self._say(f"control plane ready: gRPC {control_plane.grpc}, web http://{control_plane.web}/")

        config = Path(__file__).parents[2] / "configs" / "demo.yaml"
        self._mesh.apply(config.read_text(encoding="utf-8"), "configs/demo.yaml")
        self._trust_domain = self._mesh.status().trust_domain
        self._say("configs/demo.yaml applied")

        self._add("visitor", "")
        for service, version in INSTANCES:
            self._add(service, version)
        for done, instance in enumerate(self._instances, 1):
            await self._until(instance.sidecar.ready, instance.sidecar.process)
            if instance.app is not None:
                await self._until(partial(instance.app.find, "ready"), instance.app)
            name = f"{instance.service} {instance.version}".strip()
            self._say(f"{done} of {len(self._instances)}: {name} is ready")
        await self._warm_up(session)

    def _add(self, service: str, version: str) -> None:
        # The README's tour speaks of the default ports: they are the storefront's.
        ports = (_prefer(15001), 0, _prefer(15000)) if service == "storefront" else (0, 0, 0)
        app_port = free_ports(1)[0]
        name = f"{service}-{version or 'traffic'}"
        labels = {"version": version} if version else {}
        sidecar = self._mesh.start_sidecar(service, app_port, instance=name, labels=labels, ports=ports)
        app = None
        if version:
            command = [sys.executable, "-m", "pillion.demo.services", service, "--port", str(app_port)]
            app = self._mesh.start_app(f"{name} app", [*command, "--version", version], sidecar)
        self._instances.append(Instance(service, version, sidecar, app))

    async def _warm_up(self, session: ClientSession) -> None:
        missing = {(service, version) for service, version in INSTANCES}
        last = "no request was answered"
        deadline = time.monotonic() + READY_TIMEOUT
        while missing:
            if time.monotonic() > deadline:
                raise NotReady(f"no answer from {sorted(missing)} through the mesh; last: {last}")
            try:
                async with session.get(self._entry, headers={"Host": "storefront"}) as response:
                    last = await response.text()
                    if response.status == 200:
                        missing -= _seen(json.loads(last))
                        continue
            except (ClientError, TimeoutError, ValueError) as error:
                last = f"{type(error).__name__}: {error}"
            await self._pause(0.1)
        self._say("every service answers through the mesh")

    # ---- running ---------------------------------------------------------------------------------

    async def run(self, session: ClientSession, duration: float | None, live: Live | None) -> None:
        """Drive the traffic for `duration` seconds, or until asked to stop, scraping once a second."""
        await self._scrape(session)
        for instance in self._instances:
            instance.first = instance.samples[-1][1] if instance.samples else None
        self.traffic = Traffic(self._entry, "storefront", RATE)
        self.traffic.start()
        self.began = time.monotonic()
        end = self.began + duration if duration is not None else float("inf")
        try:
            while time.monotonic() < end:
                await self._pause(min(1.0, end - time.monotonic()))
                if live is not None:
                    await self._scrape(session)
                    live.update(self.picture(), refresh=True)
                self._tree.trim()
        except Stopped:
            if live is None and duration is not None:
                raise  # half a report would look like a whole one
        finally:
            self.ended = time.monotonic()
            await self.traffic.stop()
        await self._scrape(session)

    async def _scrape(self, session: ClientSession) -> None:
        async def one(instance: Instance) -> None:
            if instance.sidecar.process.returncode is not None:
                return
            with suppress(ClientError, TimeoutError, ValueError):
                async with session.get(f"http://127.0.0.1:{instance.sidecar.admin}/metrics") as response:
                    if response.status == 200:
                        instance.samples.append((time.monotonic(), report.parse(await response.text())))

        await asyncio.gather(*map(one, self._instances))

    # ---- showing ---------------------------------------------------------------------------------

    def picture(self) -> Any:
        """The live table over the last WINDOW seconds."""
        totals = self.traffic.totals if self.traffic else None
        requests, failures = (totals.requests, totals.failures) if totals else (0, 0)
        seconds = time.monotonic() - self.began
        headline = f"{requests} requests into the storefront in {seconds:.0f} s, {failures} failed"
        if totals and failures:
            headline += f"; most often: {totals.reasons.most_common(1)[0][0]}"
        if totals:
            grpc = totals.grpc
            headline += f"\nits gRPC: {grpc.calls} calls, {grpc.streams} streams, {grpc.failures} failed"
        rows = [self._row(instance) for instance in self._instances if instance.app is not None]
        return view.render(rows, self._edges(window=True), headline)

    def summary(self) -> dict[str, Any]:
        """The JSON report of the whole run."""
        totals = self.traffic.totals if self.traffic else None
        requests, failures = (totals.requests, totals.failures) if totals else (0, 0)
        services = [
            {
                "name": instance.service,
                "version": instance.version,
                "instance": instance.sidecar.instance,
                "state": instance.state,
            }
            for instance in self._instances
            if instance.app is not None
        ]
        seconds = self.ended - self.began
        grpc = asdict(totals.grpc if totals else GrpcTotals())
        return report.summary(requests, failures, seconds, services, self._edges(window=False), EDGES, grpc)

    def commands(self) -> list[tuple[str, str]]:
        """(what it shows, a command line that works while the demo runs)."""
        by_name = {instance.sidecar.instance: instance for instance in self._instances}
        store, second = by_name["storefront-v1"].sidecar, by_name["cart-v2"]
        pids = [p.pid for p in (second.app, second.sidecar.process) if p is not None and p.returncode is None]
        call = ("call a service by its name", f"curl -H 'Host: cart' http://127.0.0.1:{store.outbound}/")
        kill = (
            "kill cart v2, app and sidecar: cart v1 takes over, no request fails",
            f"kill -9 {' '.join(map(str, pids))}",
        )
        dump = ("what the storefront's sidecar was told", f"curl http://127.0.0.1:{store.admin}/config_dump")
        plane = self._mesh.control_plane
        program = os.path.relpath(Path(sys.executable).parent / "pillion")
        ask = (
            "ask the control plane which proxies are connected, and what they acknowledged",
            f"export PILLION_TOKEN_FILE={plane.token_file} PILLION_CONTROL_PLANE={plane.grpc}; {program} status",
        )
        return [call, kill, dump, ask] if pids else [call, dump, ask]

    def _row(self, instance: Instance) -> view.Row:
        figures, seconds, expires = report.Figures(), 0.0, None
        if instance.samples:
            (before, first), (now, last) = instance.samples[0], instance.samples[-1]
            figures, seconds, expires = (
                last.inbound.minus(first.inbound),
                now - before,
                last.certificate_expires,
            )
        if instance.sidecar.process.returncode is not None:
            figures = report.Figures()
        app_pid = instance.app.pid if instance.app else None
        left = None if expires is None else expires - time.time()
        return view.Row(
            instance.service,
            instance.version,
            app_pid,
            instance.sidecar.process.pid,
            figures,
            seconds,
            left,
            instance.state,
        )

    def _edges(self, window: bool) -> list[report.Edge]:
        sampled = [instance for instance in self._instances if instance.samples]
        pairs = [
            (instance.service, instance.samples[-1][1], instance.samples[0][1] if window else instance.first)
            for instance in sampled
        ]
        spans = [instance.samples[-1][0] - instance.samples[0][0] for instance in sampled]
        seconds = max(spans, default=0.0) if window else self.ended - self.began
        found = report.edges(time.time(), seconds, self._trust_domain, pairs)
        order = {edge: place for place, edge in enumerate(EDGES)}  # as a request flows
        return sorted(found, key=lambda edge: order.get((edge.source, edge.destination), len(order)))

    # ---- small things ----------------------------------------------------------------------------

    @property
    def _entry(self) -> str:
        return f"http://127.0.0.1:{self._instances[0].sidecar.outbound}/"

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    async def _until(self, ready: Callable[[], object], process: Process) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not ready():
            if time.monotonic() > deadline:
                raise NotReady(f"{process.name} was not ready in {READY_TIMEOUT:g} s\n{process.tail()}")
            await self._pause(0.05)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._asked_to_stop.wait(), max(0.0, seconds))
            raise Stopped


def run(duration: float | None = None, as_json: bool = False) -> int:
    """The command. Without `duration` (seconds) it runs until Ctrl-C, SIGTERM or SIGHUP; the exit status is
    above.

    With `as_json` stdout carries one JSON object at the end and nothing else; progress goes to stderr. A run
    with `as_json` that is ended by a signal has no report, and exits with 130.
    """
    return asyncio.run(_run(duration, as_json))


async def _run(duration: float | None, as_json: bool) -> int:
    console = Console(stderr=as_json)
    directory = Path(tempfile.mkdtemp(prefix="pillion-demo-"))
    logs = directory / "logs"
    logs.mkdir()
    tree = Tree(logs)
    demo = Demo(directory, console, tree)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, demo.ask_to_stop)
    keep = True
    try:
        async with ClientSession(timeout=ClientTimeout(total=5)) as session:
            await demo.start(session)
            live_table = console.is_terminal and not as_json
            if live_table:
                console.print("\n[bold]Try, in another terminal[/bold] (Ctrl-C here stops everything)", highlight=False)
            console.print(view.hints(demo.commands()), highlight=False, soft_wrap=True)
            if live_table:
                with Live(demo.picture(), console=console, auto_refresh=False, vertical_overflow="visible") as live:
                    await demo.run(session, duration, live)
            else:
                await demo.run(session, duration, None)
                if not as_json:
                    console.print(demo.picture())
        summary = demo.summary()
        keep = bool(summary["failures"])
    except Stopped:
        keep = False
        return 130 if as_json else 0
    except (ProcessFailed, NotReady) as error:
        console.print(f"the mesh did not come up: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except grpc.RpcError as error:
        console.print(f"the control plane refused: {error.details()}", markup=False, highlight=False, soft_wrap=True)
        return 1
    finally:
        try:
            if keep:
                console.print(f"something failed; the logs stay in {logs}", highlight=False, soft_wrap=True)
            console.print("stopping everything", highlight=False)
        finally:  # also when the terminal or the reader of our output is gone
            tree.stop()
            if not keep:
                shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        print(json.dumps(summary), flush=True)
    if duration is None:
        return 0
    return 0 if summary["requests"] and not summary["failures"] else 1


def _prefer(port: int) -> int:
    return port if is_free(port) else 0


def _seen(answer: dict[str, Any]) -> set[tuple[str, str]]:
    found = {(str(answer.get("service")), str(answer.get("version")))}
    for inner in (answer.get("calls") or {}).values():
        found |= _seen(inner)
    return found
