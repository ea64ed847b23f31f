"""Snapshots: a delta turns the one into the other, and dangling references are named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.config.cluster import Cluster, LoadAssignment
from proxy.config.model import TlsCertificate, TrustBundle, UpstreamTls, Validation
from proxy.config.snapshot import Snapshot, apply, consistent, diff
from tests.support.worker import snapshot as example

NAMES = st.sampled_from("abcd")
SNAPSHOTS = st.builds(
    Snapshot,
    clusters=st.dictionaries(NAMES, st.builds(Cluster, NAMES, st.just("EDS"), NAMES)),
    assignments=st.dictionaries(NAMES, st.builds(LoadAssignment, NAMES, st.just(()))),
    bundles=st.dictionaries(NAMES, st.builds(TrustBundle, NAMES, NAMES)),
    certificates=st.dictionaries(NAMES, st.builds(TlsCertificate, NAMES, NAMES, NAMES)),
)


@given(SNAPSHOTS, SNAPSHOTS)
def test_a_delta_turns_the_old_into_the_new(old: Snapshot, new: Snapshot) -> None:
    delta = diff(old, new)
    assert apply(old, delta) == new
    assert bool(delta) is (old != new)


def test_what_is_missing_is_named_with_who_misses_it() -> None:
    whole = example(1)
    assert consistent(whole) == []
    assert consistent(Snapshot(listeners=whole.listeners)) == [
        "listener 'main' refers to cluster 'app', which does not exist"
    ]
    tls = UpstreamTls("id", Validation("ca"))
    assert consistent(Snapshot(clusters={"c": Cluster("c", "EDS", "c", tls=tls)})) == [
        "cluster 'c' refers to load assignment 'c', which does not exist",
        "cluster 'c' refers to certificate 'id', which does not exist",
        "cluster 'c' refers to trust bundle 'ca', which does not exist",
    ]
