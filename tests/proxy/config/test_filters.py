"""A CORS policy over a less specific one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.config.filters import CorsPolicy
from proxy.config.model import StringMatcher

SAID = st.none() | st.booleans()
TEXT = st.sampled_from(["", "a", "b"])
ORIGINS = st.sampled_from([(), (StringMatcher("exact", "a"),), (StringMatcher("exact", "b"),)])
POLICIES = st.builds(CorsPolicy, ORIGINS, TEXT, TEXT, TEXT, TEXT, st.booleans(), SAID, SAID, SAID)


@given(POLICIES, POLICIES)
def test_what_is_said_here_counts_and_else_what_is_said_there(inner: CorsPolicy, outer: CorsPolicy) -> None:
    found = inner.over(outer)
    assert found.enabled == inner.enabled
    origins = inner.allow_origin_string_match or outer.allow_origin_string_match
    assert found.allow_origin_string_match == origins
    assert found.allow_methods == (inner.allow_methods or outer.allow_methods)
    assert found.allow_headers == (inner.allow_headers or outer.allow_headers)
    assert found.expose_headers == (inner.expose_headers or outer.expose_headers)
    assert found.max_age == (inner.max_age or outer.max_age)
    for name in ("allow_credentials", "allow_private_network_access", "forward_not_matching_preflights"):
        here, there = getattr(inner, name), getattr(outer, name)
        assert getattr(found, name) is (there if here is None else here)


@given(POLICIES)
def test_nothing_below_changes_nothing(policy: CorsPolicy) -> None:
    assert policy.over(None) is policy
