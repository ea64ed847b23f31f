"""The corpus, damaged at random: whatever a client or an upstream sends, three things hold.

What comes out on the other side is HTTP in its one form (wire.py judges); requests and answers are never miscounted,
so that nobody gets another's; and everything ends, with a record for each answer.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.conformance.case import RequestCase, ResponseCase
from tests.conformance.corpus import REQUESTS, RESPONSES
from tests.conformance.drive import Outcome, key, play, upstreams
from tests.conformance.sidecar import Log, leaks, sidecar

SEED = 20261123
COUNT = 1200
LANES = 8
PIECES = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"5", b"\x80", b"\r\n\r\n", b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
          b"Transfer-Encoding: chunked\r\n", b"chunked", b"Connection: close\r\n", b"Host: app\r\n", b"HTTP/1.1",
          b"GET /x HTTP/1.1\r\nHost: app\r\n\r\n",
          b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"HTTP/1.1 100 Continue\r\n\r\n", b"5\r\nhello\r\n",
          b"\xff", b"X: y\r\n"]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One or two small changes."""
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0:
            data = data[:at] + rng.choice(PIECES) + data[at:]
        elif what == 1:
            data = data[:at] + data[at + rng.randint(1, 4) :]
        elif what == 2:
            data = data[:at] + rng.choice(PIECES) + data[at + 1 :]
        elif what == 3:
            end = min(len(data), at + rng.randint(1, 40))
            data = data[:end] + data[at:end] + data[end:]
        else:
            lines = data.split(b"\r\n")
            rng.shuffle(lines)
            data = b"\r\n".join(lines)
    return data


def cases() -> list[RequestCase | ResponseCase]:
    rng = random.Random(SEED)
    # What is good is more telling: damaged, it may still be good.
    requests = [case for case in REQUESTS if case.forwarded and len(case.sent) < 2000 and b"HEAD" not in case.sent]
    responses = [case for case in RESPONSES if case.flags == "-" and len(case.sent) < 2000 and not case.excess]
    found: list[RequestCase | ResponseCase] = []
    for number in range(COUNT):
        request, response = rng.choice(requests), rng.choice(responses)
        name = f"{number}: {request.name}"
        found.append(RequestCase(name, "", damaged(request.sent, rng), (), eof=True))
        name = f"{number}: {response.name}"
        found.append(
            ResponseCase(
                name, "", damaged(response.sent, rng), method=response.method, request=response.request, then="close"
            )
        )
    return found


async def drive(wanted: list[RequestCase | ResponseCase], log: Log) -> dict[str, Outcome]:
    async with upstreams(LANES) as lanes, sidecar(lanes, log) as one:
        outcomes = await play(lanes, wanted, split=False)
        assert await leaks(one, lanes) == []
    return outcomes


def test_damaged_messages(tmp_path: Path) -> None:
    log = Log(tmp_path / "access.log")
    wanted = cases()
    outcomes = asyncio.run(drive(wanted, log))
    wrong = []
    for case in wanted:
        outcome = outcomes[key(case)]
        judge = what_is_wrong_with_request if isinstance(case, RequestCase) else what_is_wrong_with_response
        if text := judge(outcome) or what_is_wrong_with_log(outcome, log):
            wrong.append(f"{text}: {case.name} {case.sent!r}")
    assert not wrong, "\n".join(wrong)


def what_is_wrong_with_request(outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error
    if outcome.end != "closed":
        return f"the connection ended with {outcome.end}"
    served = outcome.statuses.count(200)
    if served != len(outcome.forwarded):
        return f"{served} answers for {len(outcome.forwarded)} requests"
    return ""


def what_is_wrong_with_response(outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error
    if len(outcome.forwarded) != 1 or len(outcome.answers) > 1:
        return f"{len(outcome.answers)} answers for {len(outcome.forwarded)} requests"
    if outcome.probe is None or outcome.probe.body != b"probe":
        return f"the next request got {outcome.probe}"
    return ""


def what_is_wrong_with_log(outcome: Outcome, log: Log) -> str:
    logged = [record["status"] for record in log.records.get(outcome.client, []) if record["flags"] != "DC"]
    answered = [*outcome.statuses, *([outcome.cut.status] if outcome.cut is not None else [])]
    return "" if logged == answered else f"records {logged} of answers {answered}"
