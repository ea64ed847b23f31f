"""Cases of one kind: bytes that a client sends behind the handshake, and what must come of them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.conformance.h2 import frames
from tests.conformance.h2.frames import code_name
from tests.conformance.h2.peer import SECONDS, Client, Peer, Silence
from tests.conformance.h2.stage import ENVOY_JUDGES

LIVES = "lives"
"""A verdict: nothing comes of it, and a PING is answered."""


@dataclass(frozen=True, slots=True)
class Case:
    """`name` begins with the section. `want` are the outcomes that the RFC allows, the best first, split by "|":

    "GOAWAY CODE" (and the connection is closed), "RST_STREAM CODE" or a status on `stream` (and it lives on), "lives".
    """

    name: str
    sent: bytes
    want: str
    stream: int = 1

    def __str__(self) -> str:
        return self.name.replace(" ", "_").replace("/", "_").replace("[", "(").replace("]", ")")


def check(client: Client, case: Case) -> None:
    """Send it and compare."""
    client.send(case.sent)
    wanted = [one.strip() for one in case.want.split("|")]
    got = lives(client) if wanted == [LIVES] else outcome(client, case.stream)
    if ENVOY_JUDGES and got == "closed":  # its way of nearly every connection error, and of many of a stream
        return
    assert got in wanted, f"{case.name}: {got} instead of {case.want}; {', '.join(map(str, client.frames))}"


def outcome(client: Peer, stream: int) -> str:
    """What came of `stream`, or of the connection."""
    try:
        answer = client.answer(stream)
    except Silence:
        return "GOAWAY, but open" if client.goaways else "nothing"
    except AssertionError:
        return ended(client)
    what = str(answer.status) if answer.reset is None else f"RST_STREAM {code_name(answer.reset)}"
    if client.goaways:
        return ended(client)
    try:
        client.sync(b"and now?")
    except Silence:
        return f"{what}, then nothing"
    except AssertionError:
        return f"{what}, then {ended(client)}"
    return what


def lives(client: Peer) -> str:
    """Whether the connection still answers."""
    try:
        client.sync(b"and now?")
    except Silence:
        return "nothing"
    except AssertionError:
        return ended(client)
    if client.goaways:
        return f"GOAWAY {code_name(client.goaways[-1].code)}"
    resets = client.got(frames.RST_STREAM)
    return f"RST_STREAM {code_name(resets[-1].code)}" if resets else LIVES


def ended(client: Peer) -> str:
    """How the connection ended."""
    try:
        code = client.error(SECONDS)
    except Silence:
        return "GOAWAY, but open" if client.goaways else "open"
    return "closed" if code is None else f"GOAWAY {code_name(code)}"
