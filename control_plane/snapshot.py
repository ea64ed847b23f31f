"""What one client should have, now: per type the resources by name, encoded once, with stable versions.

Versions are hashes of content, so they are the same after a restart and on every replica, and an unchanged
resource keeps its own. The model is go-control-plane's Snapshot and its Consistent().
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

_PREFIX = "type.googleapis.com/"
LISTENER = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTE = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
CLUSTER = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
"""In the order in which they are sent (xDS, "Eventual consistency considerations")."""

MAX_SELECTIONS = 256  # remembered per table; a client that asks for ever new subsets costs only itself

Reference = tuple[str, str]
"""(type URL, resource name)"""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as clients get it. `references`: what it cannot work without."""

    name: str
    version: str
    body: bytes  # a google.protobuf.Any
    references: frozenset[Reference] = frozenset()

    @classmethod
    def pack(cls, name: str, message: Message, references: Iterable[Reference] = ()) -> Resource:
        """Encode deterministically, so that the version depends on the content alone."""
        packed = Any()
        packed.Pack(message, deterministic=True)
        body = packed.SerializeToString(deterministic=True)
        return cls(name, _hash([body]), body, frozenset(references))


class Selection:
    """The resources of one type that one subscription sees. Shared by all streams that see the same."""

    __slots__ = ("_encoded", "by_name", "version")

    def __init__(self, by_name: Mapping[str, Resource]) -> None:
        self.by_name = by_name
        self.version = _hash(part.encode() for name in sorted(by_name) for part in (name, by_name[name].version))
        self._encoded: bytes | None = None

    def encode(self, type_url: str) -> bytes:
        """A DiscoveryResponse without its nonce; append one with `encode_nonce`."""
        if self._encoded is None:
            response = DiscoveryResponse(version_info=self.version, type_url=type_url)
            for name in sorted(self.by_name):
                response.resources.add().MergeFromString(self.by_name[name].body)
            self._encoded = response.SerializeToString()
        return self._encoded


def encode_nonce(nonce: str) -> bytes:
    """The nonce as a DiscoveryResponse of its own: concatenated messages merge (protobuf encoding)."""
    encoded: bytes = DiscoveryResponse(nonce=nonce).SerializeToString()
    return encoded


class Table:
    """All resources of one type. Never altered: safe to share and to compare by identity."""

    __slots__ = ("_everything", "_selections", "by_name")

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        by_name = {resource.name: resource for resource in resources}
        self.by_name: Mapping[str, Resource] = MappingProxyType(by_name)
        self._everything: Selection | None = None
        self._selections: dict[frozenset[str], Selection] = {}

    def everything(self) -> Selection:
        if self._everything is None:
            self._everything = Selection(self.by_name)
        return self._everything

    def select(self, names: frozenset[str]) -> Selection:
        """Those of `names` that exist."""
        selection = self._selections.get(names)
        if selection is None:
            if len(self._selections) >= MAX_SELECTIONS:
                self._selections.clear()
            found = {name: self.by_name[name] for name in names if name in self.by_name}
            selection = self._selections[names] = Selection(found)
        return selection


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything for one client, by type URL; every type of TYPES is there."""

    tables: Mapping[str, Table]

    def consistent(self) -> list[str]:
        """Every reference to something that is not there, as a sentence; empty when all is well."""
        return list(self._dangling())

    def _dangling(self) -> Iterator[str]:
        for type_url, table in self.tables.items():
            for resource in table.by_name.values():
                for target_type, target in sorted(resource.references):
                    if target not in self.tables[target_type].by_name:
                        origin = f"{short_type(type_url)} {resource.name!r}"
                        yield f"{origin} refers to {short_type(target_type)} {target!r}, which does not exist"


def short_type(type_url: str) -> str:
    """The last word of a type URL, for people."""
    return type_url.rpartition(".")[2]


def _hash(parts: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.hexdigest()
