"""What one line of the corpus says: bytes in, and what must come of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Status = int | tuple[int, ...]
"""A status, or the several among which the RFC leaves the choice."""

Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request that the upstream must have received; its host is `host`, its body exactly `body`.

    `has` are fields that must be there, `lacks` names that must not; `trailers` is the whole trailer section.
    """

    method: bytes
    target: bytes
    host: bytes = b"app"
    body: bytes = b""
    has: Pairs = ()
    lacks: tuple[bytes, ...] = ()
    trailers: Pairs = ()


@dataclass(frozen=True, slots=True)
class RequestCase:
    """What a client sends on a connection of its own, and what must come of it.

    `answers`: the final statuses, in order. `kept`: the connection then serves another request; otherwise the proxy
    closes it by itself. `forwarded`: every complete request that the upstream may see. `flags`: of each access-log
    record, one record an answer. `eof`: the client sends no more, and says so. `head`: the requests are HEAD.
    """

    name: str
    rfc: str
    sent: bytes
    answers: tuple[Status, ...]
    kept: bool = False
    forwarded: tuple[Forwarded, ...] = ()
    flags: tuple[str, ...] | None = None
    says: bytes = b""
    records: int | None = None
    eof: bool = False
    head: bool = False
    note: str = ""

    @property
    def expected_flags(self) -> tuple[str, ...]:
        if self.flags is not None:
            return self.flags
        return tuple("-" if status == 200 else "DPE" for status in self.answers)

    @property
    def expected_records(self) -> int:
        return len(self.answers) if self.records is None else self.records


@dataclass(frozen=True, slots=True)
class ResponseCase:
    """What an upstream answers to one request, and what must come of it.

    `status` is what the client gets. `broken`: the response goes wrong behind its head, so the client gets either the
    502 or a response that is visibly cut off (how much of it had arrived decides), never a clean end. `reused`: the
    upstream's connection serves the next request, too. `then`: the upstream keeps the connection open, closes it, or
    resets it. `excess`: it sends more than was asked for, `late` once the response is out, so that the proxy must give
    its connection up; only then is the next request sent. `interim`: the informational responses that the client gets.
    `body` None is not compared.
    """

    name: str
    rfc: str
    sent: bytes
    status: Status = 502
    method: bytes = b"GET"
    request: bytes = b""
    then: str = "open"
    late: bytes = b""
    excess: bool = False
    reason: bytes | None = None
    body: bytes | None = None
    has: Pairs = ()
    lacks: tuple[bytes, ...] = ()
    trailers: Pairs = ()
    interim: tuple[int, ...] = ()
    flags: str | tuple[str, ...] = "UPE"
    broken: bool = False
    reused: bool = False
    note: str = ""

    @property
    def asked(self) -> bytes:
        """The client's request."""
        return self.request or self.method + b" / HTTP/1.1\r\nHost: app\r\n\r\n"


def get(target: bytes = b"/", host: bytes = b"app", **more: Any) -> Forwarded:
    """A GET at the upstream."""
    return Forwarded(b"GET", target, host, **more)


def post(body: bytes, target: bytes = b"/", **more: Any) -> Forwarded:
    """A POST at the upstream."""
    return Forwarded(b"POST", target, b"app", body, **more)


def ok(name: str, rfc: str, sent: bytes, *forwarded: Forwarded, kept: bool = True, **more: Any) -> RequestCase:
    """Requests that are all answered with 200."""
    return RequestCase(name, rfc, sent, (200,) * len(forwarded), kept, forwarded, **more)


def bad(name: str, rfc: str, sent: bytes, status: Status = 400, **more: Any) -> RequestCase:
    """A request that is refused, and the connection closed, before anything reaches the upstream."""
    return RequestCase(name, rfc, sent, (status,), **more)


def each(prefix: str, rfc: str, template: bytes, values: dict[str, bytes], **more: Any) -> Iterable[RequestCase]:
    """`bad` for each value in place of @ in the template."""
    return [bad(f"{prefix}: {name}", rfc, template.replace(b"@", value), **more) for name, value in values.items()]


def good(name: str, rfc: str, sent: bytes, status: int = 200, reused: bool = True, **more: Any) -> ResponseCase:
    """A response that the client gets."""
    return ResponseCase(name, rfc, sent, status, flags="-", reused=reused, **more)


def wrong(name: str, rfc: str, sent: bytes, **more: Any) -> ResponseCase:
    """A response whose head is refused: 502, UPE, and the connection is not used again."""
    return ResponseCase(name, rfc, sent, **more)


def broken(name: str, rfc: str, sent: bytes, **more: Any) -> ResponseCase:
    """A response that goes wrong behind its head."""
    return ResponseCase(name, rfc, sent, broken=True, **more)


def wrongs(prefix: str, rfc: str, template: bytes, values: dict[str, bytes], **more: Any) -> list[ResponseCase]:
    """`wrong` for each value in place of @ in the template."""
    return [wrong(f"{prefix}: {name}", rfc, template.replace(b"@", value), **more) for name, value in values.items()]
