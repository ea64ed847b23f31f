"""One client's state-of-the-world ADS stream, sans-IO.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol ("ACK/NACK and resource type
instance version", "Resource updates", "Eventual consistency considerations").

It has no phases. Whenever something happened, `responses` compares what the client should have with what it
was sent last, type by type, in the order CDS, EDS, LDS, RDS, and holds back what is not safe yet:

- Routes and listeners wait until the client has acknowledged every cluster that they name, and the endpoints
  of those clusters (for at most WARMING seconds: a client need not ask for endpoints).
- A cluster that is gone stays in CDS as long as a route or listener that the client may hold names it.

What the client may hold: what it acknowledged last, what is on its way, and what it refused (it may have
applied the good part of that).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPES, Resource, Selection, Snapshot

MAX_NAMES = 16_384  # resource names in one request
MAX_NAME = 1024  # characters
MAX_EARLIER = 16
"""Refused selections that are remembered beside the last one, per type."""
MAX_REASON = 2048  # characters of a NACK's reason that are kept
RATE = 200.0  # requests a second, sustained; a client that sends more is read more slowly
BURST = 500.0
WARMING = 5.0  # seconds

WILDCARD = "*"
_FULL_STATE = frozenset({CLUSTER, LISTENER})  # types whose responses are the whole truth


class StreamError(Exception):
    """The client broke the protocol or a bound; the stream must end. INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class Request:
    """What matters of a DiscoveryRequest. `error` is error_detail's message, or None without error_detail."""

    type_url: str
    resource_names: Sequence[str] = ()
    version_info: str = ""
    response_nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What makes a DiscoveryResponse."""

    type_url: str
    nonce: str
    selection: Selection


@dataclass(slots=True)
class Subscription:
    """One type on one stream."""

    names: frozenset[str] = frozenset()
    wildcard: bool = False
    named: bool = False  # names were given once, so no names no longer mean everything
    nonce: str = ""
    sent: Selection | None = None
    acked: Selection | None = None
    pending: bool = False  # `sent` is neither acknowledged nor refused yet
    refused: Selection | None = None  # the last NACK, until a later ACK
    earlier: tuple[Selection, ...] = ()  # those before it: a client that takes what is good in each may hold parts
    error: str = ""
    owed: bool = False  # names were added: answer even if nothing changed

    def held(self) -> Iterator[Selection]:
        """Everything that the client may be using, wholly or in part."""
        if self.acked is not None:
            yield self.acked
        if self.pending and self.sent is not None:
            yield self.sent
        if self.refused is not None:
            yield self.refused
        yield from self.earlier

    def has(self, name: str) -> bool:
        """The client certainly has it: acknowledged, and not taken away since."""
        return self.acked is not None and all(name in selection.by_name for selection in self.held())


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """For people: what was sent, what was acknowledged, and the reason of a NACK that no ACK followed."""

    type_url: str
    sent_version: str
    acked_version: str
    error: str


@dataclass(slots=True)
class Counters:
    """By type URL. One for all streams of a server."""

    pushes: Counter[str] = field(default_factory=Counter)
    acks: Counter[str] = field(default_factory=Counter)
    nacks: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Stream:
    """Feed `receive` and `update`; after each, send what `responses` returns, and again at `deadline`."""

    snapshot: Snapshot
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    _nonces: int = 0
    _tokens: float = BURST
    _refilled: float | None = None
    _waiting_since: float | None = None

    def update(self, snapshot: Snapshot) -> None:
        """What the client should have from now on."""
        self.snapshot = snapshot

    def throttle(self, now: float) -> float:
        """Take one request's worth of the rate; the seconds to wait before reading the next one."""
        if self._refilled is not None:
            self._tokens = min(BURST, self._tokens + (now - self._refilled) * RATE)
        self._refilled = now
        self._tokens -= 1
        return max(0.0, -self._tokens / RATE)

    def receive(self, request: Request) -> str:
        """Take in one request. Returns the reason if it is a NACK, else "". Raises StreamError."""
        if len(request.resource_names) > MAX_NAMES or any(len(n) > MAX_NAME for n in request.resource_names):
            raise StreamError(f"resource_names: at most {MAX_NAMES} names of at most {MAX_NAME} characters")
        if request.type_url not in TYPES:
            return ""  # secrets, runtime, extensions: never answered, so the client sees that there are none
        subscription = self.subscriptions.get(request.type_url)
        if subscription is None:
            subscription = self.subscriptions[request.type_url] = Subscription(owed=True)
        elif request.response_nonce and request.response_nonce != subscription.nonce:
            self.counters.stale[request.type_url] += 1  # an answer to the newest response will follow
            return ""
        nack = ""
        if request.response_nonce and subscription.pending:
            subscription.pending = False
            if request.error is None:
                self.counters.acks[request.type_url] += 1
                subscription.acked, subscription.refused, subscription.earlier = subscription.sent, None, ()
            else:
                self.counters.nacks[request.type_url] += 1
                if subscription.refused is not None:
                    subscription.earlier = (subscription.refused, *subscription.earlier)[:MAX_EARLIER]
                subscription.refused = subscription.sent
                nack = request.error[:MAX_REASON] or "no reason given"
            subscription.error = nack
        self._subscribe(subscription, request)
        return nack

    def _subscribe(self, subscription: Subscription, request: Request) -> None:
        names = frozenset(request.resource_names)
        # "How the client specifies what resources to return": no names at first mean everything.
        subscription.named = subscription.named or bool(names)
        wildcard = request.type_url in _FULL_STATE and (WILDCARD in names or not subscription.named)
        names -= {WILDCARD}
        if (wildcard and not subscription.wildcard) or names - subscription.names:
            subscription.owed = True
        subscription.names, subscription.wildcard = names, wildcard

    def responses(self, now: float) -> list[Response]:
        """What to send now, in this order; never a second response of a type that is still unanswered."""
        ready = []
        waiting = False
        for type_url in TYPES:
            subscription = self.subscriptions.get(type_url)
            if subscription is None or subscription.pending:
                continue
            wanted = self._wanted(type_url, subscription)
            if not _news(type_url, subscription, wanted):
                continue
            if type_url in (LISTENER, ROUTE):
                named = _clusters(wanted)
                if not self._has_clusters(named):
                    continue
                if not self._has_endpoints(named) and not self._waited(now):
                    waiting = True
                    continue
            self.counters.pushes[type_url] += 1
            self._nonces += 1
            subscription.nonce = f"{self._nonces:x}"
            subscription.sent, subscription.pending, subscription.owed = wanted, True, False
            ready.append(Response(type_url, subscription.nonce, wanted))
        if not waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        return ready

    def deadline(self) -> float | None:
        """When `responses` must be called again even if nothing happens."""
        return None if self._waiting_since is None else self._waiting_since + WARMING

    def status(self) -> list[TypeStatus]:
        return [
            TypeStatus(
                type_url,
                it.sent.version if it.sent else "",
                it.acked.version if it.acked else "",
                it.error,
            )
            for type_url, it in self.subscriptions.items()
        ]

    def _wanted(self, type_url: str, subscription: Subscription) -> Selection:
        table = self.snapshot.tables[type_url]
        selection = table.everything() if subscription.wildcard else table.select(subscription.names)
        if type_url != CLUSTER:
            return selection
        kept = self._still_named(subscription, selection)
        return Selection({**selection.by_name, **kept}) if kept else selection

    def _still_named(self, subscription: Subscription, wanted: Selection) -> Mapping[str, Resource]:
        """The clusters that are to go, and that a route or listener that the client may hold still names."""
        before = {
            name: resource
            for selection in subscription.held()
            if selection is not wanted
            for name, resource in selection.by_name.items()
            if name not in wanted.by_name and (subscription.wildcard or name in subscription.names)
        }
        if not before:
            return before
        named = {name for selection in self._users() for name in _clusters(selection)}
        return {name: resource for name, resource in before.items() if name in named}

    def _users(self) -> Iterator[Selection]:
        for type_url in (LISTENER, ROUTE):
            if type_url in self.subscriptions:
                yield from self.subscriptions[type_url].held()

    def _has_clusters(self, named: set[str]) -> bool:
        clusters = self.subscriptions.get(CLUSTER)
        if clusters is None or not clusters.wildcard:
            return True  # it asks for clusters by name, once it has seen their names (gRPC does)
        return all(clusters.has(name) for name in named)

    def _has_endpoints(self, named: set[str]) -> bool:
        clusters = self.subscriptions.get(CLUSTER)
        if clusters is None or not clusters.wildcard:
            return True
        endpoints = self.subscriptions.get(ENDPOINT)
        table = self.snapshot.tables[CLUSTER].by_name
        needed = (reference for name in named for reference in table[name].references)
        return all(endpoints is not None and endpoints.has(name) for type_url, name in needed if type_url == ENDPOINT)

    def _waited(self, now: float) -> bool:
        return self._waiting_since is not None and now >= self._waiting_since + WARMING


def _news(type_url: str, subscription: Subscription, wanted: Selection) -> bool:
    """Is there a reason to send `wanted`?"""
    refused = subscription.refused
    if refused is not None and refused.version == wanted.version:
        return False  # the client would refuse it again
    if type_url not in _FULL_STATE and not wanted.by_name:
        return False  # nothing of what it asks for exists; what is owed stays owed until something does
    if subscription.owed:
        return True
    sent = subscription.sent
    if sent is None or sent.version == wanted.version:
        return sent is None
    if type_url in _FULL_STATE or refused is not None:
        return True
    # Names that the client no longer asks for, or that are gone, are no news: absence says nothing here.
    old, new = sent.by_name, wanted.by_name
    if old.keys() == new.keys():
        return True  # so one of them has another version
    return any(name not in old or old[name].version != it.version for name, it in new.items())


def _clusters(selection: Selection) -> set[str]:
    return {
        target
        for resource in selection.by_name.values()
        for target_type, target in resource.references
        if target_type == CLUSTER
    }
