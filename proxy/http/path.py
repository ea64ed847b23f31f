"""What a request's path means: normalised before anything looks at it, as Envoy's HttpConnectionManager does.

Two spellings of one resource must not pass for two in a route or a policy. The rules are those of Envoy, which are
those of the WHATWG URL standard: RFC 3986 §6.2.2 (dot segments, escapes of unreserved characters) and what browsers do
beyond it (a backslash is a slash). The test compares with a real Envoy.

Where Envoy needs to be asked twice, this asks twice: it leaves /a/..;/b of /a/%2e%2e;/b, which some servers read as
/b; here the result of normalising never changes when it is normalised again.
"""

from __future__ import annotations

import re
from typing import Final, Literal

EscapedSlashes = Literal["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]

_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"  # RFC 3986 §2.3
_CLEAN: Final = _UNRESERVED + b"!$&'()*+,;=:@[]/?"
"""What normalising leaves as it is, but for the slashes and dots that are looked at apart. The query's question mark
is among it, other characters of a query cost a closer look."""

_INVALID: Final = b"\x00"
"""Stands for a percent sign that begins no escape, while the rest is decoded. No path has it: %00 is refused."""

_ESCAPED_SLASH: Final = re.compile(rb"%2[Ff]|%5[Cc]")
_TO_REWRITE: Final = re.compile(rb"%[0-9A-Fa-f]{2}|%|[^%" + re.escape(_CLEAN) + rb"]")
_NESTED: Final = re.compile(_INVALID + rb"(?=[0-9A-Fa-f]{2})")
_DOTS_WITH_PARAMETERS: Final = re.compile(rb"(?<=/)(\.\.?);[^/]*")
_SLASHES: Final = re.compile(rb"//+")


def _rewrites() -> dict[bytes, bytes]:
    """Each escape and each single byte, in every spelling → what normalising makes of it. What is absent stays."""
    found = {bytes((byte,)): b"%%%02X" % byte for byte in range(256) if byte not in _CLEAN}
    found[b"\\"] = b"/"
    found[b"%"] = _INVALID
    for byte in _UNRESERVED:
        high, low = b"%x" % (byte >> 4), b"%x" % (byte & 15)
        for first in (high, high.upper()):
            for second in (low, low.upper()):
                found[b"%" + first + second] = bytes((byte,))
    return found


_REWRITES: Final = _rewrites()


class PathRefused(Exception):
    """The path must not be served: 400. The text says why."""


class PathRedirected(Exception):
    """The client is to ask for `target` instead: 307."""

    def __init__(self, target: bytes) -> None:
        super().__init__()
        self.target = target


class PathPolicy:
    """The three options of HttpConnectionManager, for the paths of one listener."""

    __slots__ = ("_action", "_merge", "_normalize", "_unclean")

    def __init__(self, normalize: bool, merge: bool, action: EscapedSlashes) -> None:
        self._normalize = normalize
        self._merge = merge
        self._action = action
        # Bytes whose absence, together with that of "//" and "/.", says that there is nothing to do.
        self._unclean = _CLEAN if normalize else bytes(byte for byte in range(256) if byte != 0x25)

    def rewrite(self, target: bytes) -> bytes:
        """The request target that counts; its query stays as it is, and so does "*".

        Raises PathRefused and PathRedirected."""
        if not target.translate(None, self._unclean) and b"//" not in target and b"/." not in target:
            return target
        return self._rewrite(target)

    def _rewrite(self, target: bytes) -> bytes:
        path, question, query = target.partition(b"?")
        if path[:1] != b"/":  # "*", or the authority of CONNECT
            return target
        redirect = False
        if self._action != "KEEP_UNCHANGED" and _ESCAPED_SLASH.search(path) is not None:
            if self._action == "REJECT_REQUEST":
                raise PathRefused("an escaped slash (%2F or %5C) in the path")
            path = _ESCAPED_SLASH.sub(_unescape_slash, path)
            redirect = self._action == "UNESCAPE_AND_REDIRECT"
        again = True
        while again:
            if self._normalize:
                path = normalize(path)
            if self._merge:
                path = merge_slashes(path)
            again = self._normalize and _DOTS_WITH_PARAMETERS.search(path) is not None
        if redirect:
            raise PathRedirected(path + question + query)
        return path + question + query


def compile_path_policy(normalize: bool, merge: bool, action: EscapedSlashes) -> PathPolicy | None:
    """The policy of HttpConnectionManager's normalize_path, merge_slashes and path_with_escaped_slashes_action; None
    when there is nothing to do."""
    if not normalize and not merge and action == "KEEP_UNCHANGED":
        return None
    return PathPolicy(normalize, merge, action)


def normalize(path: bytes) -> bytes:
    """A path without query, beginning with a slash: escapes of unreserved characters decoded, backslashes made
    slashes, what must not stand in a path escaped, dot segments removed. Other escapes keep their case. One pass, as
    Envoy's: parameters of a dot segment that was written with escapes are left.

    Raises PathRefused for an escaped NUL."""
    # A server that strips path parameters would read "..;x" as "..".
    path = _DOTS_WITH_PARAMETERS.sub(rb"\1", path)
    if b"%00" in path:
        raise PathRefused("an escaped NUL (%00) in the path")
    if _TO_REWRITE.search(path) is not None:
        path = _TO_REWRITE.sub(_replacement, path)
        if _INVALID in path:
            # %%32e must not become an escape that was not there: %252e
            path = _NESTED.sub(b"%25", path).replace(_INVALID, b"%")
    return _remove_dot_segments(path) if b"/." in path else path


def _replacement(found: re.Match[bytes]) -> bytes:
    text: bytes = found[0]
    return _REWRITES.get(text, text)


def _unescape_slash(found: re.Match[bytes]) -> bytes:
    text: bytes = found[0]
    return b"/" if text[1:2] == b"2" else b"\\"


def _remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986 §5.2.4. An empty segment counts as one."""
    kept: list[bytes] = []
    directory = False  # whether the path ends with a slash for what was removed at its end
    for segment in path[1:].split(b"/"):
        directory = segment in (b".", b"..")
        if not directory:
            kept.append(segment)
        elif segment == b".." and kept:
            kept.pop()
    if directory:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def merge_slashes(path: bytes) -> bytes:
    """Several slashes become one; of a path of nothing else two stay, as in Envoy."""
    if b"//" not in path:
        return path
    return _SLASHES.sub(b"/", path) if path.strip(b"/") else b"//"
