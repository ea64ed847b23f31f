"""The Autobahn cases (kosoku's fuzzing client) against a WebSocket server, and against the same one behind a pair of
sidecars over mutual TLS: the verdicts are the same, case by case, whatever they are.

The suite leaves out the cases that only repeat others with more bytes. WEBSOCKET_CASES="*" in the environment runs all.
"""

from __future__ import annotations

import os
from pathlib import Path

import kosoku
import pytest
from aiohttp import WSMsgType, web

from tests.support import sidecars
from tests.support.harness import harness, metric

pytestmark = [
    pytest.mark.integration,
    # kosoku does not close the files that it reads its test data from.
    pytest.mark.filterwarnings("ignore:unclosed file .*kosoku:ResourceWarning"),
]

CASES = os.environ.get("WEBSOCKET_CASES", "1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.1.* 9.3.* 9.5.1 10.* 12.1.1 13.1.1").split()
WEBSOCKET = {"upgrade_configs": [{"upgrade_type": "websocket"}]}


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Every message back."""
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def verdicts(port: int) -> dict[str, tuple[str, str]]:
    """(of the messages, of the closing handshake) by case."""
    try:
        results = await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}/", cases=CASES, concurrency=8)
    except kosoku.FailureError as error:
        results = error.results
    return {result.case_id: (result.behavior.value, result.behavior_close.value) for result in results}


async def test_the_autobahn_cases_fare_the_same_through_a_pair(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        direct = await verdicts(port)
        assert sum(verdict[0] in ("OK", "NON-STRICT", "INFORMATIONAL") for verdict in direct.values()) > 0.9 * len(
            direct
        )
        with harness(tmp_path) as work:
            pair = sidecars.pair(work, port, manager=WEBSOCKET)
            through = await verdicts(pair.front.listen)
            for one in pair.sidecars.values():
                assert metric(one.admin, "downstream_cx_upgrades_total") >= len(direct)
                assert metric(one.admin, "upstream_rq_active") == 0
        assert {case: verdict for case, verdict in through.items() if direct[case] != verdict} == {}
        assert through.keys() == direct.keys()
    finally:
        await runner.cleanup()
