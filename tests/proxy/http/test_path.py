"""Path normalisation: rules, properties, and the verdict of a real Envoy."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.path import EscapedSlashes, PathPolicy, PathRedirected, PathRefused, compile_path_policy
from tests.support.envoy import MISSING, Envoy, envoy

ACTIONS: list[EscapedSlashes] = ["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]
OPTIONS = list(itertools.product((False, True), (False, True), ACTIONS))[1:]
TOKENS = [
    b"/", b"/", b"/", b"//", b".", b"..", b"%2e", b"%2E", b";", b"..;", b"\\", b"%2f", b"%5C", b"a", b"B", b"%41",
    b"%7c", b"|", b"%", b"%6", b"5", b"%36", b"2", b"%2", b"e", b"f", b"%32", b"%25", b"%00", b"?", b"~", b"%7E",
]  # fmt: skip
targets = st.lists(st.sampled_from(TOKENS), max_size=12).map(lambda parts: b"/" + b"".join(parts))

Outcome = bytes | tuple[int, bytes]


def outcome(policy: PathPolicy, target: bytes) -> Outcome:
    """What becomes of a target: itself or another, or (status, where to)."""
    try:
        return policy.rewrite(target)
    except PathRefused:
        return (400, b"")
    except PathRedirected as redirected:
        return (307, redirected.target)


def test_a_listener_that_does_not_ask_has_no_policy() -> None:
    assert compile_path_policy(False, False, "KEEP_UNCHANGED") is None


@pytest.mark.parametrize(
    ("given_path", "normal"),
    [
        (b"/a/b?c=/../%2e//", b"/a/b?c=/../%2e//"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/../../etc/passwd", b"/etc/passwd"),
        (b"/a/..", b"/"),
        (b"/a/b/.", b"/a/b/"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/%41%7e%2d", b"/A~-"),
        (b"/a%2Fb%5cc%3F", b"/a%2Fb%5cc%3F"),  # other escapes stay, in their case
        (b"/a\\..\\b", b"/b"),
        (b'/"<>^`{|}', b"/%22%3C%3E%5E%60%7B%7C%7D"),
        (b"/a/..;x=1/b", b"/b"),
        (b"/a/%2e%2e;x/b", b"/b"),
        (b"/%%32%65%%32%65/x", b"/%252e%252e/x"),  # what was no escape does not become one
        (b"/...;/.a/b..", b"/...;/.a/b.."),
        (b"/a//b", b"/a//b"),
        (b"*", b"*"),
    ],
)
def test_normalize_path(given_path: bytes, normal: bytes) -> None:
    assert outcome(PathPolicy(True, False, "KEEP_UNCHANGED"), given_path) == normal


def test_an_escaped_nul_is_refused() -> None:
    with pytest.raises(PathRefused, match="NUL"):
        PathPolicy(True, False, "KEEP_UNCHANGED").rewrite(b"/a%00b")


def test_merge_slashes() -> None:
    policy = PathPolicy(False, True, "KEEP_UNCHANGED")
    assert policy.rewrite(b"//a///b/..//?x=//") == b"/a/b/../?x=//"
    assert policy.rewrite(b"////") == b"//"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("KEEP_UNCHANGED", b"/a%2fb%5Cc?%2f"),
        ("REJECT_REQUEST", (400, b"")),
        ("UNESCAPE_AND_REDIRECT", (307, b"/a/b\\c?%2f")),
        ("UNESCAPE_AND_FORWARD", b"/a/b\\c?%2f"),
    ],
)
def test_escaped_slashes(action: EscapedSlashes, expected: Outcome) -> None:
    assert outcome(PathPolicy(False, False, action), b"/a%2fb%5Cc?%2f") == expected


def test_escaped_slashes_are_decoded_before_dots_are_removed() -> None:
    assert PathPolicy(True, True, "UNESCAPE_AND_FORWARD").rewrite(b"/a%2f%2E%2e%2f%2fb") == b"/b"


@given(targets, st.sampled_from(OPTIONS))
def test_normalising_twice_changes_nothing(target: bytes, options: tuple[bool, bool, EscapedSlashes]) -> None:
    policy = PathPolicy(*options)
    found = outcome(policy, target)
    if isinstance(found, bytes):
        assert outcome(policy, found) == found


@given(targets | st.binary(max_size=40).map(lambda tail: b"/" + tail), st.booleans(), st.sampled_from(ACTIONS))
def test_no_dot_segment_and_no_stray_byte_is_left(target: bytes, merge: bool, action: EscapedSlashes) -> None:
    found = outcome(PathPolicy(True, merge, action), target)
    path = (found if isinstance(found, bytes) else found[1]).partition(b"?")[0]
    assert not re.search(rb"/(\.|%2[eE]){1,2}(;[^/]*)?(/|$)", path)
    assert not re.search(rb"[\x00-\x20\\\"<>^`{|}\x7f-\xff]", path)
    assert not merge or path == b"//" or b"//" not in path


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="no envoy beside this Python")
def test_envoy_has_the_same_opinion(tmp_path: Path) -> None:
    """A few hundred paths made of what matters. Envoy is asked again with its own answer until that stays: see the
    text of proxy.http.path."""
    direct = {
        "match": {"prefix": ""},
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "x-path", "value": "%REQ(:PATH)%"}}],
    }
    routes = {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [direct]}]}
    managers = [
        {
            "route_config": routes,
            "normalize_path": normalize,
            "merge_slashes": merge,
            "path_with_escaped_slashes_action": action,
        }
        for normalize, merge, action in OPTIONS
    ]
    draw = random.Random(2045)
    with envoy(tmp_path, managers) as judge:
        for _ in range(600):
            target = b"/" + b"".join(draw.choices(TOKENS, k=draw.randint(0, 9)))
            index = draw.randrange(len(OPTIONS))
            assert outcome(PathPolicy(*OPTIONS[index]), target) == settled(judge, index, target), (
                OPTIONS[index],
                target,
            )


def settled(judge: Envoy, index: int, target: bytes) -> Outcome:
    """Envoy's outcome for a target, asked again with what it made of it until that stays the same."""
    redirected = False
    while True:
        answer = judge.ask(index, b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % target)
        status = int(answer[9:12])
        if status == 400:
            return (400, b"")
        field = b"location" if status == 307 else b"x-path"
        found = re.search(rb"\r\n" + field + rb": (.*)\r\n", answer)
        assert found is not None, answer
        redirected = redirected or status == 307
        if found[1] == target:
            return (307, target) if redirected else target
        target = found[1]
