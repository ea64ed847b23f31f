"""upgrade_configs of HttpConnectionManager and of RouteAction: which protocols requests may ask for."""

from __future__ import annotations

import re

from proxy.agent.decode.reader import Reader
from proxy.http.heads import CONNECT

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z/-]+")
"""A protocol's name and perhaps its version (RFC 9110 §7.8)."""
_CONNECT = CONNECT.decode()


def read_upgrades(reader: Reader) -> tuple[tuple[tuple[str, bool], ...], bool]:
    """(lower-case protocol, whether it is enabled) for each of a message's upgrade_configs, "connect" for CONNECT; and
    whether CONNECT has a connect_config."""
    found: dict[str, bool] = {}
    ends_connect = False
    for entry in reader.children("upgrade_configs"):
        # `filters` of the one message and proxy_protocol_config of the other are reported as unsupported by done().
        given = entry.required("upgrade_type")
        name = given.lower()
        if given and not _TOKEN.fullmatch(given):
            entry.error(f"{given!r} is not the name of a protocol", "upgrade_type")
        elif name in found:
            entry.error(f"{given!r} has an upgrade config already", "upgrade_type")
        elif name == "h2c":
            entry.unsupported("h2c is never passed on", "upgrade_type")
        found[name] = entry.wrapped("enabled", True)
        if "connect_config" in entry.message.DESCRIPTOR.fields_by_name and entry.child("connect_config") is not None:
            ends_connect = True
            if name != _CONNECT:
                entry.error("only CONNECT has a connect_config", "connect_config")
    return tuple(found.items()), ends_connect
