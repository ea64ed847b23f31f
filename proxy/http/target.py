"""What a request may be addressed to: hosts and paths (RFC 3986). Those that passed are remembered, within a bound."""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)"
_HOST: Final = re.compile(rb"(?:" + _NAME + rb"(?::[0-9]{0,5})?)?")
_CONNECT_TO: Final = re.compile(_NAME + rb":[0-9]{1,5}")
_PATH: Final = re.compile(rb"/[!\"$-~]*")
_MAX_HOST: Final = 261
"""A name's 255 octets (RFC 1035 §2.3.4) and a port."""
_MAX_KEPT: Final = 4096
_MAX_PATH: Final = 256
_hosts: set[bytes] = set()
_paths: set[bytes] = set()


def is_host(host: bytes) -> bool:
    """RFC 3986 §3.2.2 and §3.2.3, without userinfo (RFC 9110 §4.2.4) and without commas, which would make a list of
    it; empty is one."""
    if host in _hosts:
        return True
    if len(host) > _MAX_HOST or _HOST.fullmatch(host) is None:
        return False
    if len(_hosts) >= _MAX_KEPT:
        _hosts.clear()
    _hosts.add(host)
    return True


def is_connect_target(target: bytes) -> bool:
    """host:port (RFC 9110 §9.3.6)."""
    return _CONNECT_TO.fullmatch(target) is not None


def is_path(path: bytes) -> bool:
    """A path and perhaps a query: characters that a URI may have or that browsers send as they are, no fragment."""
    if path in _paths:
        return True
    if _PATH.fullmatch(path) is None:
        return False
    if len(path) <= _MAX_PATH:
        if len(_paths) >= _MAX_KEPT:
            _paths.clear()
        _paths.add(path)
    return True
