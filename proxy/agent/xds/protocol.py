"""The ADS conversation without I/O: which requests follow from which responses, and what is known meanwhile."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PREFIX = "type.googleapis.com/envoy.config."
CDS = _PREFIX + "cluster.v3.Cluster"
EDS = _PREFIX + "endpoint.v3.ClusterLoadAssignment"
LDS = _PREFIX + "listener.v3.Listener"
RDS = _PREFIX + "route.v3.RouteConfiguration"
TYPES = (CDS, EDS, LDS, RDS)
"""In the order of subscription."""
_WHOLE = frozenset({CDS, LDS})
"""Types whose responses hold everything that exists; the others' hold what changed among the names asked for."""
_SHORT = {CDS: "cds", EDS: "eds", LDS: "lds", RDS: "rds"}


def short(type_url: str) -> str:
    """cds, eds, lds or rds; anything else as it is."""
    return _SHORT.get(type_url, type_url)


class Refused(Exception):
    """A resource that cannot be accepted; the text names resource and field."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A resource understood. `refers_to` are the names that it needs of EDS (a cluster) or RDS (a listener)."""

    name: str
    value: object
    refers_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource in use: what came, and what it means."""

    decoded: Decoded
    raw: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A DiscoveryRequest. `error` makes it a NACK; `version` is what is accepted (so, on a NACK, the one before)."""

    type_url: str
    version: str
    nonce: str
    names: tuple[str, ...]
    error: str | None = None


class Ads:
    """One client's knowledge and its part in the conversation. It outlives streams."""

    def __init__(
        self,
        decode: Callable[[str, bytes], Decoded],
        check: Callable[[str, Sequence[Decoded]], Mapping[str, str]] = lambda _type_url, _resources: {},
    ) -> None:
        """`decode(type_url, bytes)` and `check(type_url, all resources of a response)` raise Refused for the whole
        response. `check` returns the resources that cannot be used, by name with the reason: the others are."""
        self._decode, self._check = decode, check
        self._resources: dict[str, dict[str, Resource]] = {type_url: {} for type_url in TYPES}
        self._versions = dict.fromkeys(TYPES, "")
        self._nonces = dict.fromkeys(TYPES, "")
        self._asked: dict[str, tuple[str, ...]] = {}
        self.complete = False
        """Whether clusters and listeners have been received, ever."""

    def resources(self, type_url: str) -> Mapping[str, Resource]:
        """What is in use, by name."""
        return self._resources[type_url]

    def version(self, type_url: str) -> str:
        """The accepted version; empty before the first."""
        return self._versions[type_url]

    def open(self) -> list[Request]:
        """The first requests of a new stream: names and versions of what is known, and no nonces."""
        self._nonces = dict.fromkeys(TYPES, "")
        self._asked = {}
        return [request for type_url in TYPES for request in self._subscribe(type_url)]

    def receive(self, type_url: str, version: str, nonce: str, raws: Sequence[bytes]) -> tuple[list[Request], bool]:
        """Answer a response: (the requests to send, whether anything changed). Unknown types are not answered."""
        if type_url not in self._resources:
            return [], False
        self._nonces[type_url] = nonce
        try:
            found, unusable = self._understood(type_url, raws)
        except Refused as refused:
            return [self._request(type_url, str(refused))], False
        # As Envoy's LDS: what is good is used, what is not stays as it was, and the answer is a NACK all the same.
        error = "; ".join(unusable[name] for name in sorted(unusable)) or None
        if error is None:
            self._versions[type_url] = version
        before = self._resources[type_url]
        for name in unusable:
            found.pop(name)
            if name in before:
                found[name] = before[name]
        after = found if type_url in _WHOLE else {**before, **found}
        self._resources[type_url] = self._wanted_only(type_url, after)
        changed = self._resources[type_url] != before or not self.complete
        self.complete = all(self._versions[whole] for whole in _WHOLE)
        requests = [self._request(type_url, error)]
        if type_url in _WHOLE:
            dependent = EDS if type_url == CDS else RDS
            self._resources[dependent] = self._wanted_only(dependent, self._resources[dependent])
            requests += self._subscribe(dependent)
        return requests, changed

    def dump(self) -> dict[str, Any]:
        """What is in use, for a later restore()."""
        return {
            type_url: {name: resource.raw for name, resource in self._resources[type_url].items()} for type_url in TYPES
        }

    def restore(self, dump: Mapping[str, Any]) -> None:
        """Take up what an earlier process had. Raises Refused, and then nothing is known.

        Versions are not restored: after a restart the control plane is asked for everything anew, so a cache can
        never make this sidecar miss a change."""
        restored: dict[str, dict[str, Resource]] = {type_url: {} for type_url in TYPES}
        for type_url in TYPES:
            for text in dict(dump.get(type_url, {})).values():
                raw = text if isinstance(text, bytes) else base64.b64decode(text)
                decoded = self._decode(type_url, raw)
                restored[type_url][decoded.name] = Resource(decoded, raw)
            for name in self._check(type_url, [resource.decoded for resource in restored[type_url].values()]):
                del restored[type_url][name]
        self._resources = restored

    # ---- parts -----

    def _understood(self, type_url: str, raws: Sequence[bytes]) -> tuple[dict[str, Resource], Mapping[str, str]]:
        """All resources of a response, and which of them cannot be used. Raises Refused."""
        known = {resource.raw: resource for resource in self._resources[type_url].values()}
        found: dict[str, Resource] = {}
        for raw in raws:
            resource = known.get(raw) or Resource(self._decode(type_url, raw), raw)
            if resource.decoded.name in found:
                raise Refused(f"{short(type_url)}: {resource.decoded.name!r} comes twice")
            found[resource.decoded.name] = resource
        return found, self._check(type_url, [resource.decoded for resource in found.values()])

    def _wanted(self, type_url: str) -> tuple[str, ...]:
        if type_url in _WHOLE:
            return ()
        whole = self._resources[CDS if type_url == EDS else LDS]
        return tuple(sorted({name for resource in whole.values() for name in resource.decoded.refers_to}))

    def _wanted_only(self, type_url: str, resources: dict[str, Resource]) -> dict[str, Resource]:
        if type_url in _WHOLE:
            return resources
        wanted = frozenset(self._wanted(type_url))
        return {name: resource for name, resource in resources.items() if name in wanted}

    def _subscribe(self, type_url: str) -> list[Request]:
        names = self._wanted(type_url)
        if self._asked.get(type_url, None if type_url in _WHOLE else ()) == names:
            return []
        return [self._request(type_url)]

    def _request(self, type_url: str, error: str | None = None) -> Request:
        names = self._asked[type_url] = self._wanted(type_url)
        return Request(type_url, self._versions[type_url], self._nonces[type_url], names, error)
