"""The ADS conversation, sans-IO."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent.xds.protocol import CDS, EDS, LDS, RDS, Ads, Decoded, Refused, Request


def decode(type_url, raw):
    """Resources of these tests: b"name" or b"name>needs,needs"; b"!name" is refused."""
    text = raw.decode()
    if text.startswith("!"):
        raise Refused(f'cluster "{text[1:]}": connect_timeout: must be positive')
    name, _, needs = text.partition(">")
    name = name.partition("=")[0]
    return Decoded(name, text, tuple(needs.split(",")) if needs else ())


def requests(answer):
    return answer[0]


def test_first_requests_are_clusters_and_listeners():
    assert Ads(decode).open() == [Request(CDS, "", "", ()), Request(LDS, "", "", ())]


def test_clusters_are_acknowledged_and_their_endpoints_asked_for():
    ads = Ads(decode)
    ads.open()
    answer, changed = ads.receive(CDS, "7", "n1", [b"b>b", b"a>a"])
    assert answer == [Request(CDS, "7", "n1", ()), Request(EDS, "", "", ("a", "b"))]
    assert changed
    answer, changed = ads.receive(EDS, "3", "n2", [b"a", b"b"])
    assert answer == [Request(EDS, "3", "n2", ("a", "b"))]
    assert changed


def test_a_new_cluster_extends_the_subscription_with_version_and_nonce():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a"])
    ads.receive(EDS, "1", "n2", [b"a"])
    answer, _ = ads.receive(CDS, "2", "n3", [b"a>a", b"b>b"])
    assert answer == [Request(CDS, "2", "n3", ()), Request(EDS, "1", "n2", ("a", "b"))]


def test_a_refused_resource_refuses_the_response_and_keeps_what_was():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a"])
    answer, changed = ads.receive(CDS, "2", "n2", [b"b>b", b"!cart"])
    assert answer == [Request(CDS, "1", "n2", (), 'cluster "cart": connect_timeout: must be positive')]
    assert not changed
    assert set(ads.resources(CDS)) == {"a"}
    assert ads.version(CDS) == "1"


def test_the_same_name_twice_is_refused():
    ads = Ads(decode)
    ads.open()
    answer, _ = ads.receive(CDS, "1", "n1", [b"a=1", b"a=2"])
    assert answer[0].error == "cds: 'a' comes twice"


def test_check_can_refuse():
    def check(type_url, resources):
        if type_url == LDS:
            raise Refused('listener "x": address in use')

    ads = Ads(decode, check)
    ads.open()
    assert ads.receive(LDS, "1", "n", [b"x"])[0][0].error == 'listener "x": address in use'


def taken(type_url, resources):
    """Listeners whose value says `taken` cannot be had."""
    return {r.name: f"listener {r.name!r}: address in use" for r in resources if "taken" in r.value}


def test_what_cannot_be_used_is_refused_and_the_rest_is_used():
    ads = Ads(decode, taken)
    ads.open()
    ads.receive(LDS, "1", "n1", [b"a=1", b"b=1"])
    answer, changed = ads.receive(LDS, "2", "n2", [b"a=2", b"b=taken", b"c=taken>r", b"d=2>s"])
    assert answer[0] == Request(LDS, "1", "n2", (), "listener 'b': address in use; listener 'c': address in use")
    assert answer[1] == Request(RDS, "", "", ("s",))
    assert changed
    assert {n: r.raw for n, r in ads.resources(LDS).items()} == {"a": b"a=2", "b": b"b=1", "d": b"d=2>s"}
    answer, _ = ads.receive(LDS, "3", "n3", [b"a=3", b"b=3"])
    assert answer[0] == Request(LDS, "3", "n3", ())
    assert set(ads.resources(LDS)) == {"a", "b"}


def test_what_cannot_be_used_any_more_is_not_restored():
    ads = Ads(decode)
    ads.open()
    ads.receive(LDS, "1", "n1", [b"a=1", b"b=taken"])
    again = Ads(decode, taken)
    again.restore(ads.dump())
    assert set(again.resources(LDS)) == {"a"}


def test_whole_types_remove_what_is_absent_and_partial_types_do_not():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a", b"b>b"])
    ads.receive(EDS, "1", "n2", [b"a=1", b"b=1"])
    ads.receive(EDS, "2", "n3", [b"a=2"])
    assert {n: r.raw for n, r in ads.resources(EDS).items()} == {"a": b"a=2", "b": b"b=1"}
    answer, _ = ads.receive(CDS, "2", "n4", [b"a>a"])
    assert set(ads.resources(CDS)) == set(ads.resources(EDS)) == {"a"}
    assert answer[1] == Request(EDS, "2", "n3", ("a",))


def test_what_was_not_asked_for_is_ignored_and_unknown_types_are_not_answered():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a"])
    ads.receive(EDS, "1", "n2", [b"a", b"stranger"])
    assert set(ads.resources(EDS)) == {"a"}
    assert ads.receive("type.googleapis.com/other", "1", "n", [b"x"]) == ([], False)


def test_routes_follow_listeners():
    ads = Ads(decode)
    ads.open()
    answer, _ = ads.receive(LDS, "1", "n1", [b"outbound>outbound", b"inbound"])
    assert answer == [Request(LDS, "1", "n1", ()), Request(RDS, "", "", ("outbound",))]


def test_a_new_stream_resumes_with_versions_and_names_but_no_nonces():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a"])
    ads.receive(EDS, "5", "n2", [b"a"])
    ads.receive(LDS, "2", "n3", [b"l>r"])
    ads.receive(RDS, "3", "n4", [b"r"])
    assert ads.complete
    assert ads.open() == [
        Request(CDS, "1", "", ()),
        Request(EDS, "5", "", ("a",)),
        Request(LDS, "2", "", ()),
        Request(RDS, "3", "", ("r",)),
    ]
    assert set(ads.resources(EDS)) == {"a"}


def test_an_unchanged_response_changes_nothing():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a"])
    ads.receive(LDS, "1", "n2", [b"l"])
    assert ads.receive(CDS, "2", "n3", [b"a>a"]) == ([Request(CDS, "2", "n3", ())], False)


def test_a_restored_cache_serves_and_asks_for_everything_anew():
    ads = Ads(decode)
    ads.open()
    ads.receive(CDS, "1", "n1", [b"a>a"])
    ads.receive(EDS, "5", "n2", [b"a=1"])
    ads.receive(LDS, "2", "n3", [b"l"])
    again = Ads(decode)
    again.restore(ads.dump())
    assert {n: r.raw for n, r in again.resources(EDS).items()} == {"a": b"a=1"}
    assert again.open() == [Request(CDS, "", "", ()), Request(EDS, "", "", ("a",)), Request(LDS, "", "", ())]
    assert not again.complete
    broken = Ads(decode)
    with pytest.raises(Refused):
        broken.restore({CDS: {"a": b"!a"}})
    assert not broken.resources(CDS)


NAMES = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)
RESPONSES = st.lists(
    st.one_of(
        st.tuples(st.just(CDS), NAMES, st.booleans()),
        st.tuples(st.just(EDS), NAMES, st.booleans()),
        st.tuples(st.none(), st.just([]), st.just(False)),  # the stream is lost
    ),
    max_size=12,
)


@given(RESPONSES)
def test_whatever_comes_the_subscription_matches_the_clusters(responses):
    ads = Ads(decode)
    sent = ads.open()
    for number, (type_url, names, bad) in enumerate(responses):
        if type_url is None:
            sent += ads.open()
            continue
        needs = (lambda n: f"{n}>{n}") if type_url == CDS else (lambda n: n)
        raws = [needs(n).encode() for n in names] + ([b"!bad"] if bad else [])
        before = dict(ads.resources(type_url)), ads.version(type_url)
        new, changed = ads.receive(type_url, str(number), f"nonce{number}", raws)
        assert new[0].type_url == type_url
        assert new[0].nonce == f"nonce{number}"
        assert (new[0].error is not None) == bad
        if bad:
            assert (dict(ads.resources(type_url)), ads.version(type_url)) == before
            assert not changed
        sent += new
        clusters = tuple(sorted(ads.resources(CDS)))
        asked = [request.names for request in sent if request.type_url == EDS]
        assert (asked[-1] if asked else ()) == clusters
        assert set(ads.resources(EDS)) <= set(clusters)
