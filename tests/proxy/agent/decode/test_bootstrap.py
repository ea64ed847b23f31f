"""A whole bootstrap: text, node, admin, snapshot, secrets, DNS."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.agent.decode import DecodeError, PrivateKey, decode_bootstrap
from proxy.config.cluster import Endpoint, LoadAssignment, OutlierDetection
from proxy.config.listener import AccessLog, HttpConnectionManager
from proxy.config.model import Address, DownstreamTls, SanMatcher, StringMatcher, UpstreamTls, Validation
from proxy.config.snapshot import consistent
from tests.support.bootstraps import (
    DOWNSTREAM_TLS,
    FILE_LOG,
    STDERR_LOG,
    STDOUT_LOG,
    UPSTREAM_TLS,
    bootstrap,
    changed,
    endpoint,
)
from tests.support.certificates import Authority

DATA = Path(__file__).parent / "data"


def decode(values: dict[str, Any]) -> Any:
    return decode_bootstrap(json.dumps(values), "boot.json")


def http(values: dict[str, Any]) -> HttpConnectionManager:
    found: HttpConnectionManager = decode(values).snapshot.listeners["hop"].filter_chain.http
    return found


# ---- text --------------------------------------------------------------------------------------------------


def test_yaml_and_json_mean_the_same() -> None:
    from_json = decode_bootstrap(json.dumps(bootstrap()), "boot.json")
    from_yaml = decode_bootstrap(yaml.safe_dump(bootstrap()), "boot.yaml")
    assert from_json.snapshot == from_yaml.snapshot


def test_a_yaml_flow_mapping_is_yaml() -> None:
    assert decode_bootstrap(str(bootstrap()).replace("True", "true"), "boot.yaml").node_id == "n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping"),
        ("- a", "expected a mapping"),
        ("a: [", "line 2, column 1"),
        ("node: {id: a}\nnode: {id: b}", "line 2, column 1: duplicate key 'node'"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document in the stream, but found another document"),
        ("node:\n  id: a\n  id: b", "line 3, column 3: duplicate key 'id'"),
        ('{"node": {"id": "a", "id": "b"}}', "duplicate key 'id'"),
        ("1: a", "key 1 is no string"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: \x00", "is not YAML"),
        ("{" * 20, "column"),
        ("a: &a [b]\nc: *d", "found undefined alias"),
        ("a: &a [*a]", "recursive"),
        (
            "\n".join([f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else 1}]" for i in range(10)]),
            "more than",
        ),
        ("nodes: {}", "nodes: is not a field of envoy.config.bootstrap.v3.Bootstrap; did you mean node?"),
    ],
)
def test_bad_text_is_one_line_that_names_the_file(text: str, words: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(words)) as caught:
        decode_bootstrap(text, "boot.yaml")
    assert str(caught.value).startswith("boot.yaml: ")


def test_yaml_words_are_not_turned_into_numbers_or_dates() -> None:
    text = yaml.safe_dump(bootstrap()).replace("id: n", "id: 2026-11-22\n  cluster: 1:30")
    found = decode_bootstrap(text, "boot.yaml")
    assert (found.node_id, found.node_cluster) == ("2026-11-22", "1:30")


@settings(deadline=None)  # the first example imports the protos
@given(st.text(max_size=200))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_bootstrap(text, "boot.yaml")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in _places(inner, (*path, key)))][:]


@settings(deadline=None)  # the first example imports the protos
@given(st.sampled_from(_places(bootstrap())[1:]), _JSON)
def test_anything_anywhere_is_decoded_or_refused(place: tuple[Any, ...], value: Any) -> None:
    values: Any = bootstrap()
    target = values
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    try:
        found = decode(values)
    except DecodeError:
        return
    assert consistent(found.snapshot) == []


# ---- node, admin, clusters ---------------------------------------------------------------------------------


def test_node_and_admin() -> None:
    values = bootstrap()
    values["node"] = {
        "id": "a",
        "cluster": "b",
        "metadata": {"x": {"y": [1, "z"]}},
        "locality": {"zone": "1"},
    }
    values["admin"] = {"address": {"socket_address": {"address": "::1", "port_value": 0}}}
    values["dynamic_resources"] = {}
    found = decode(values)
    assert (found.node_id, found.node_cluster, found.admin) == ("a", "b", Address("::1", 0))
    assert found.node_metadata == {"x": {"y": [1.0, "z"]}}


def test_neither_node_nor_admin_is_needed() -> None:
    values = bootstrap()
    del values["node"]
    found = decode(values)
    assert (found.node_id, found.admin, found.warnings) == ("", None, ())


def test_strict_dns_leaves_the_names_to_the_agent() -> None:
    values = changed("cluster", type="STRICT_DNS")
    cluster = values["static_resources"]["clusters"][0]
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {**endpoint(80, "app.example"), "load_balancing_weight": 3},
        endpoint(81, "127.0.0.1"),
    ]
    found = decode(values)
    named = Endpoint(Address("app.example", 80), 3, hostname="app.example")
    assert found.dns == (("app", (named, Endpoint(Address("127.0.0.1", 81)))),)
    assert found.snapshot.assignments == {"app": LoadAssignment("app", ())}
    assert consistent(found.snapshot) == []


def test_protobufs_own_json_form_is_taken() -> None:
    values = changed("cluster", connectTimeout="1.500s", type=0, lbPolicy="RANDOM")
    values["static_resources"]["listeners"][0]["address"] = {
        "socketAddress": {"address": "127.0.0.1", "portValue": "15001"}
    }
    found = decode(values)
    assert found.snapshot.clusters["app"].connect_timeout == 1.5
    assert found.snapshot.listeners["hop"].address.port == 15001


def test_a_listener_without_a_name_is_called_by_its_address() -> None:
    assert set(decode(changed("listener", name=None)).snapshot.listeners) == {"127.0.0.1:15001"}


# ---- access logs -------------------------------------------------------------------------------------------


def logs(*loggers: dict[str, Any]) -> tuple[AccessLog, ...]:
    entries = [{"name": "log", "typed_config": logger} for logger in loggers]
    return http(changed("hcm", access_log=entries)).access_logs


def test_access_logs() -> None:
    json_format = {"log_format": {"json_format": {"b": "%RESPONSE_CODE%", "a": "%REQ(:PATH)%"}}}
    text_format = {"log_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE%\n"}}}
    assert logs(
        {"@type": FILE_LOG, "path": "/tmp/a.log", **json_format},
        {"@type": STDOUT_LOG, **text_format},
        {"@type": STDERR_LOG, "log_format": {"text_format": "%PROTOCOL%"}},
    ) == (
        AccessLog("/tmp/a.log", json_format=(("a", "%REQ(:PATH)%"), ("b", "%RESPONSE_CODE%"))),
        AccessLog("/dev/stdout", text_format="%RESPONSE_CODE%\n"),
        AccessLog("/dev/stderr", text_format="%PROTOCOL%"),
    )


def test_without_a_format_it_is_envoys() -> None:
    (log,) = logs({"@type": STDOUT_LOG})
    assert log.text_format is not None
    assert log.text_format.startswith('[%START_TIME%] "%REQ(:METHOD)%')


# ---- secrets -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority()
    (directory / "ca.pem").write_text(authority.pem)
    for name in ("in", "out"):
        authority.issue(f"spiffe://bench/service/{name}").write(directory, name)
    (directory / "encrypted.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    return directory


def common(pki: Path, **more: Any) -> dict[str, Any]:
    pair = {"certificate_chain": {"filename": f"{pki}/in.pem"}, "private_key": {"filename": f"{pki}/in.key"}}
    return {
        "tls_certificates": [pair],
        "validation_context": {
            "trusted_ca": {"filename": f"{pki}/ca.pem"},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://bench/"}},
                {"san_type": "DNS", "matcher": {"exact": "In", "ignore_case": True}},
            ],
        },
        "alpn_protocols": ["http/1.1"],
        **more,
    }


def tls(side: str, context: dict[str, Any], **more: Any) -> dict[str, Any]:
    kind = DOWNSTREAM_TLS if side == "chain" else UPSTREAM_TLS
    config = {"@type": kind, "common_tls_context": context, **more}
    return changed(side, transport_socket={"name": "tls", "typed_config": config})


def test_certificates_from_files_on_both_sides(pki: Path) -> None:
    validation = Validation(
        f"{pki}/ca.pem",
        (
            SanMatcher("URI", StringMatcher("prefix", "spiffe://bench/")),
            SanMatcher("DNS", StringMatcher("exact", "In", ignore_case=True)),
        ),
    )
    found = decode(tls("chain", common(pki), require_client_certificate=True))
    assert found.snapshot.listeners["hop"].filter_chain.tls == DownstreamTls(
        f"{pki}/in.pem", validation, True, ("http/1.1",)
    )
    assert found.snapshot.bundles[f"{pki}/ca.pem"].pem == (pki / "ca.pem").read_text()
    assert found.snapshot.certificates[f"{pki}/in.pem"].chain_pem == (pki / "in.pem").read_text()
    assert found.snapshot.certificates[f"{pki}/in.pem"].uri_san == "spiffe://bench/service/in"
    assert found.keys[f"{pki}/in.pem"].pem == (pki / "in.key").read_bytes()
    found = decode(tls("cluster", common(pki), sni="in"))
    assert found.snapshot.clusters["app"].tls == UpstreamTls(f"{pki}/in.pem", validation, "in", ("http/1.1",))


def test_inline_certificates_are_called_by_their_place(pki: Path) -> None:
    pair = {
        "certificate_chain": {"inline_string": (pki / "in.pem").read_text()},
        "private_key": {"inline_string": (pki / "in.key").read_text()},
    }
    ca = {"trusted_ca": {"inline_string": (pki / "ca.pem").read_text()}}
    found = decode(tls("cluster", {"tls_certificates": [pair], "validation_context": ca}))
    (name,) = found.snapshot.certificates
    assert name == ("static_resources.clusters[0].transport_socket.typed_config.common_tls_context.tls_certificates[0]")
    assert set(found.keys) == {name}


def test_a_key_in_the_wrong_place_does_not_show_either(pki: Path) -> None:
    key = (pki / "in.key").read_text()
    for wrong in (
        {"private_key": key},
        {"private_key": {"inline_bytes": key}},
        {"password": {"filename": [key]}},
    ):
        with pytest.raises(DecodeError) as caught:
            decode(tls("chain", common(pki, tls_certificates=[wrong])))
        assert key.splitlines()[1] not in str(caught.value)
        assert "tls_certificates[0]." in caught.value.path


def test_a_key_never_shows(pki: Path) -> None:
    found = decode(tls("chain", common(pki)))
    secret = (pki / "in.key").read_text().splitlines()[1]
    assert secret not in repr(found)
    assert repr(PrivateKey(b"x")) == "PrivateKey(<hidden>)"
    with pytest.raises(TypeError, match="memfd"):
        pickle.dumps(PrivateKey(b"x"))


@pytest.mark.parametrize(
    ("chain", "key", "path", "words"),
    [
        ("in.pem", "out.key", "private_key.filename", "does not belong to the certificate"),
        (
            "in.pem",
            "encrypted.key",
            "private_key.filename",
            "is encrypted; give the key without a passphrase",
        ),
        ("in.pem", "in.pem", "private_key.filename", "holds no private key"),
        ("in.key", "in.key", "certificate_chain.filename", "holds no certificate"),
        ("none", "in.key", "certificate_chain.filename", "No such file"),
        ("in.pem", "none", "private_key.filename", "No such file"),
        ("in.pem", "", "private_key.filename", "Is a directory"),
    ],
)
def test_bad_pairs_are_found_before_a_worker_starts(pki: Path, chain: str, key: str, path: str, words: str) -> None:
    pair = {"certificate_chain": {"filename": f"{pki}/{chain}"}, "private_key": {"filename": f"{pki}/{key}"}}
    with pytest.raises(DecodeError) as caught:
        decode(tls("chain", common(pki, tls_certificates=[pair])))
    assert caught.value.path.endswith(f"tls_certificates[0].{path}")
    assert words in caught.value.message
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_bad_bundle_is_found(pki: Path, text: str) -> None:
    ca = {"trusted_ca": {"inline_string": text}}
    with pytest.raises(DecodeError, match=r"validation_context\.trusted_ca\.inline_string: .*PEM"):
        decode(tls("chain", common(pki, validation_context=ca)))


def test_a_passphrase_two_certificates_or_no_ca_are_refused(pki: Path) -> None:
    pair = common(pki)["tls_certificates"][0]
    with pytest.raises(DecodeError, match=r"tls_certificates\[0\]\.password: is not supported"):
        decode(tls("chain", common(pki, tls_certificates=[{**pair, "password": {"inline_string": "x"}}])))
    with pytest.raises(DecodeError, match="more than one certificate is not supported"):
        decode(tls("chain", common(pki, tls_certificates=[pair, pair])))
    with pytest.raises(DecodeError, match="require_client_certificate: needs a validation_context"):
        decode(tls("chain", {"tls_certificates": [pair]}, require_client_certificate=True))
    with pytest.raises(DecodeError, match="a listener needs tls_certificates"):
        decode(tls("chain", {}))


# ---- the benchmark's own files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hop", "in", "out"])
def test_bootstraps_that_both_proxies_are_measured_with(name: str, pki: Path) -> None:
    text = (DATA / f"measured-{name}.yaml").read_text().replace("{dir}", str(pki))
    found = decode_bootstrap(text, f"{name}.yaml")
    (listener,) = found.snapshot.listeners.values()
    (cluster,) = found.snapshot.clusters.values()
    assert (listener.filter_chain.tls is not None) == (name == "in")
    assert (cluster.tls is not None) == (name == "out")
    assert cluster.lb_policy == "LEAST_REQUEST"
    assert cluster.outlier_detection == OutlierDetection()
    assert listener.filter_chain.http.access_logs[0].path == f"{pki}/{name}.log"


def test_a_certificate_without_a_uri_is_taken(tmp_path: Path) -> None:
    chain, key = Authority().issue(dns="cart.example").write(tmp_path, "cart")
    pair = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
    (certificate,) = decode(tls("chain", {"tls_certificates": [pair]})).snapshot.certificates.values()
    assert certificate.uri_san == ""
