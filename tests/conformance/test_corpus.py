"""The corpus through a real worker: each case once in one piece and once cut into segments.

Requests go through two workers in a row, too: what the first one writes, the second one takes.

A whole module's cases are played side by side, once; each has a test of its own that judges what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.case import Forwarded, RequestCase, ResponseCase, Status
from tests.conformance.corpus import REQUESTS, RESPONSES
from tests.conformance.drive import Outcome, key, play, upstreams
from tests.conformance.sidecar import Log, leaks, sidecar
from tests.conformance.wire import Message

LANES = 8
WAYS = ("whole", "cut")
PAIR = "pair"
AT_THE_LIMIT = "100 fields"


@dataclass(frozen=True, slots=True)
class Played:
    outcomes: dict[str, Outcome]
    log: Log
    leaks: list[str]

    def of(self, case: RequestCase | ResponseCase) -> tuple[Outcome, list[dict[str, Any]]]:
        outcome = self.outcomes[key(case)]
        return outcome, self.log.records.get(outcome.client, [])


async def _play(cases: list[RequestCase | ResponseCase], way: str, log: Log) -> Played:
    async with contextlib.AsyncExitStack() as stack:
        lanes = await stack.enter_async_context(upstreams(LANES))
        if way == PAIR:
            await stack.enter_async_context(sidecar(lanes, Log(log.path.with_name("inner.log"))))
            for lane in lanes:
                lane.upstream_port = lane.port
        one = await stack.enter_async_context(sidecar(lanes, log))
        outcomes = await play(lanes, cases, way == "cut")
        left = [] if way == PAIR else await leaks(one, lanes)
    return Played(outcomes, log, left)


def selected(request: pytest.FixtureRequest, way: str) -> list[RequestCase | ResponseCase]:
    cases: list[RequestCase | ResponseCase] = []
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec"):
            params: dict[str, Any] = item.callspec.params
            if params["way"] == way and "case" in params:
                cases.append(params["case"])
    return cases


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """What came of the cases of the tests that were selected."""
    found = {}
    for way in (*WAYS, PAIR):
        cases = selected(request, way)
        log = Log(tmp_path_factory.mktemp("log") / "access.log")
        log.path.touch()
        found[way] = asyncio.run(_play(cases, way, log))
    return found


def matches(found: int, expected: Status) -> bool:
    return found in expected if isinstance(expected, tuple) else found == expected


@pytest.mark.parametrize("way", [*WAYS, PAIR])
@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.name)
def test_request(played: dict[str, Played], way: str, case: RequestCase) -> None:
    if way == PAIR and case.name == AT_THE_LIMIT:
        pytest.skip("with the fields that the first sidecar adds it is beyond the second one's limit")
    outcome, records = played[way].of(case)
    assert outcome.error == ""
    assert {message.version for message in outcome.answers} <= {b"HTTP/1.1"}
    assert len(outcome.statuses) == len(case.answers), f"{outcome.statuses} and then {outcome.end}"
    assert all(map(matches, outcome.statuses, case.answers)), outcome.statuses
    assert [record["status"] for record in records if record["status"]] == list(outcome.statuses)
    assert len(records) == case.expected_records, records
    assert tuple(record["flags"] for record in records) == case.expected_flags
    assert outcome.end == "closed", "the proxy did not close"
    assert outcome.kept == case.kept
    if case.says and way == "whole":  # of one byte nobody can tell what it begins
        assert case.says in outcome.answers[-1].body
    if case.kept:
        assert outcome.probe is not None
        assert outcome.probe.body == b"probe"
    elif outcome.answers:
        assert outcome.answers[-1].get(b"connection") == b"close"
    assert len(outcome.forwarded) == len(case.forwarded), outcome.forwarded
    for message, expected in zip(outcome.forwarded, case.forwarded, strict=True):
        check_forwarded(message, expected)


def check_forwarded(message: Message, expected: Forwarded) -> None:
    assert (message.method, message.target) == (expected.method, expected.target)
    assert message.get(b"host") == expected.host
    assert message.body == expected.body
    assert tuple(message.trailers) == expected.trailers
    for name, value in expected.has:
        assert message.get(name) == value
    for name in expected.lacks:
        assert message.get(name) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.name)
def test_response(played: dict[str, Played], way: str, case: ResponseCase) -> None:
    outcome, records = played[way].of(case)
    assert outcome.error == ""
    assert len(outcome.forwarded) == 1, "the request was sent once"
    if case.broken:
        check_broken(outcome, records)
    else:
        assert len(outcome.answers) == 1, outcome.end
        assert tuple(message.status for message in outcome.interim) == case.interim
        check_answer(outcome.answers[0], case)
        assert [record["status"] for record in records] == [outcome.answers[0].status]
    assert len(records) == 1, records
    assert records[0]["flags"] in ((case.flags,) if isinstance(case.flags, str) else case.flags)
    assert outcome.probe is not None, "the next request was not answered"
    assert (outcome.probe.status, outcome.probe.body) == (200, b"probe")
    assert outcome.probed is not None
    assert (outcome.probed.connection == outcome.forwarded[0].connection) == case.reused


def check_broken(outcome: Outcome, records: list[dict[str, Any]]) -> None:
    """Refused, or visibly cut off."""
    if outcome.answers:
        assert outcome.statuses in ((502,), (503,))
        assert [record["status"] for record in records] == list(outcome.statuses)
    else:
        assert outcome.end == "cut"


def check_answer(message: Message, case: ResponseCase) -> None:
    assert matches(message.status, case.status)
    if case.reason is not None:
        assert message.reason == case.reason
    if case.body is not None:
        assert message.body == case.body
    for name, value in case.has:
        assert message.get(name) == value
    for name in case.lacks:
        assert message.get(name) is None
    assert tuple(message.trailers) == case.trailers


@pytest.mark.parametrize("way", WAYS)
def test_the_worker_is_at_rest_afterwards(played: dict[str, Played], way: str) -> None:
    """No connection and no request is left once the clients are gone, but for idle connections in the pool."""
    assert played[way].leaks == []


def test_names_are_unique() -> None:
    """Outcomes are found by name."""
    for cases in (REQUESTS, RESPONSES):
        assert len({case.name for case in cases}) == len(cases)
