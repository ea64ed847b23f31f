"""What of a request decides where it goes (envoy.config.route.v3.RouteAction.HashPolicy), for ring hash and Maglev.

As in Envoy: the hashes of several policies are combined in order, one that finds nothing changes nothing, and one that
is `terminal` ends the list if there is a hash by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import parse_qsl

from proxy.config.route import HashPolicy
from proxy.policy.balance.hosts import Context
from proxy.policy.hashing import xxh64


class Request(Protocol):
    """What a policy looks at: http.heads.RequestHead, whatever the protocol it came by."""

    target: bytes
    headers: list[tuple[bytes, bytes]]

    def find(self, name: bytes) -> bytes | None: ...


def hash_request(policies: Sequence[HashPolicy], head: Request, client: str, connection: str) -> Context:
    """The hash of a request, and the cookies that its answer must set. `client`: the client's address and port.
    `connection` tells connections apart: a new cookie is the same for all requests of one."""
    key = Context()
    for policy in policies:
        found: int | None = None
        if policy.kind == "header":
            found = _header(head, policy.name.encode())
        elif policy.kind == "cookie":
            found = _cookie(policy, head, connection, key.set_cookies)
        elif policy.kind == "query_parameter":
            found = _query(head, policy.name)
        else:
            found = xxh64(client.rpartition(":")[0].strip("[]").encode())
        before = key.hash_key
        if found is not None:
            key.hash_key = found if before is None else (((before << 1) & _MASK) | (before >> 63)) ^ found
        if policy.terminal and key.hash_key is not None:
            break
    return key


_MASK = 0xFFFFFFFFFFFFFFFF


def _header(head: Request, name: bytes) -> int | None:
    values = [value for field, value in head.headers if field == name]
    if not values:
        lifted = head.find(name)
        if lifted is None:
            return None
        values = [lifted]
    values.sort()  # Envoy: their order does not matter
    seed = 0
    for value in values:
        seed = xxh64(value, seed)
    return seed


def _cookie(policy: HashPolicy, head: Request, connection: str, set_cookies: list[bytes]) -> int | None:
    name = policy.name.encode()
    value = _cookie_value(head, name)
    if not value:
        if policy.ttl is None:
            return None
        value = b"%016x" % xxh64(connection.encode())
        set_cookies.append(_set_cookie(policy, name, value))
    return xxh64(value)


def _cookie_value(head: Request, name: bytes) -> bytes:
    for field, line in head.headers:
        if field == b"cookie":
            for pair in line.split(b";"):
                found, equals, value = pair.partition(b"=")
                if equals and found.strip(b" \t") == name:
                    return value.strip(b" \t").strip(b'"')
    return b""


def _set_cookie(policy: HashPolicy, name: bytes, value: bytes) -> bytes:
    """RFC 6265 §4.1. A ttl of 0 makes it last as long as the browser's session."""
    parts = [b'%b="%b"' % (name, value)]
    if policy.ttl:
        parts.append(b"Max-Age=%d" % policy.ttl)
    if policy.path:
        parts.append(b"Path=" + policy.path.encode())
    parts += [f"{key}={text}".encode() if text else key.encode() for key, text in policy.attributes]
    parts.append(b"HttpOnly")
    return b"; ".join(parts)


def _query(head: Request, name: str) -> int | None:
    query = head.target.partition(b"?")[2].decode("latin-1")
    for key, value in parse_qsl(query, keep_blank_values=True, encoding="latin-1"):
        if key == name:
            return xxh64(value.encode("latin-1"))
    return None
