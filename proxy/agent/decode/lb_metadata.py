"""filter_metadata["envoy.lb"]: what endpoints have and routes ask for, to make and to choose subsets."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from proxy.agent.decode.reader import Reader
from proxy.config.balance import Metadata

_NAMESPACE = "envoy.lb"


def read_lb_metadata(reader: Reader, name: str) -> Metadata:
    """Of a Metadata field; other namespaces are not for load balancing."""
    metadata: Any = reader.opaque(name)
    return lb_metadata(metadata) if reader.has(name) else ()


def lb_metadata(metadata: Any) -> Metadata:
    """Of a Metadata message."""
    return struct_metadata(metadata.filter_metadata[_NAMESPACE]) if _NAMESPACE in metadata.filter_metadata else ()


def struct_metadata(struct: Any) -> Metadata:
    """Of a google.protobuf.Struct. Values are compared as a whole, and 1 is not true."""
    values = json_format.MessageToDict(struct)
    return tuple(sorted((key, json.dumps(value, sort_keys=True)) for key, value in values.items()))
